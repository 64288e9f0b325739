//! The report of ovn-trace(8), read: where the packet went and how it ended.

use serde::Serialize;

/// One pass through a logical datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    pub direction: String,
    pub datapath: String,
    pub inport: String,
    pub outport: String,
    /// What happened there beyond forwarding: connection tracking, NAT, load balancing, drops.
    pub notes: Vec<String>,
}

/// How one copy of the packet ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum End {
    Delivered { port: String },
    Dropped { datapath: String, stage: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Walk {
    pub hops: Vec<Hop>,
    pub ends: Vec<End>,
}

pub fn parse_walk(report: &str) -> Walk {
    let mut walk = Walk::default();
    let mut stage = String::new();
    for line in report.lines() {
        let text = line.trim();
        if let Some(hop) = parse_hop(line) {
            walk.hops.push(hop);
            stage.clear();
        } else if let Some(port) = text.strip_prefix("/* output to ") {
            let port = port.split('"').nth(1).unwrap_or_default().to_owned();
            walk.ends.push(End::Delivered { port });
        } else if text == "drop;" || text.contains("implicit drop") || text.contains("dropping") {
            let datapath = walk.hops.last().map(|h| h.datapath.clone()).unwrap_or_default();
            walk.ends.push(End::Dropped { datapath, stage: stage.clone() });
        } else if let Some(note) = parse_note(text) {
            if let Some(hop) = walk.hops.last_mut() {
                hop.notes.push(note);
            }
        } else if is_table(text) {
            stage = text.to_owned();
        }
    }
    walk
}

/// `ingress(dp="ovn-default", inport="a.default")`
fn parse_hop(line: &str) -> Option<Hop> {
    let (direction, rest) = line.split_once("(dp=")?;
    if direction != "ingress" && direction != "egress" {
        return None;
    }
    let value = |key: &str| {
        let (_, tail) = line.split_once(&format!("{key}=\""))?;
        Some(tail.split('"').next()?.to_owned())
    };
    Some(Hop {
        direction: direction.to_owned(),
        datapath: rest.split('"').nth(1).unwrap_or_default().to_owned(),
        inport: value("inport").unwrap_or_default(),
        outport: value("outport").unwrap_or_default(),
        notes: Vec::new(),
    })
}

/// ` 9. ls_in_acl_eval (northd.c:7000): ...`
fn is_table(text: &str) -> bool {
    let head = text.split('.').next().unwrap_or_default();
    !head.is_empty() && head.len() <= 3 && head.bytes().all(|b| b.is_ascii_digit())
}

fn parse_note(text: &str) -> Option<String> {
    let words = ["ct_dnat", "ct_snat", "ct_lb", "ct_commit_nat", "reject", "ct_dnat_in_czone"];
    let action = words.iter().any(|w| text.starts_with(w)) && text.ends_with(';');
    action.then(|| text.trim_end_matches(';').to_owned())
}

impl End {
    pub fn shown(&self) -> String {
        match self {
            End::Delivered { port } => format!("delivered to {port:?}"),
            End::Dropped { datapath, stage } if stage.is_empty() => {
                format!("dropped in {datapath:?}")
            }
            End::Dropped { datapath, stage } => format!("dropped in {datapath:?} at {stage}"),
        }
    }
}

impl Walk {
    /// One line per end, for the last lines of a trace.
    pub fn verdicts(&self) -> String {
        if self.ends.is_empty() {
            return "verdict: no output\n".to_owned();
        }
        self.ends.iter().map(|end| format!("verdict: {}\n", end.shown())).collect()
    }

    /// The way as a picture of text.
    pub fn drawn(&self, from: &str, to: &str) -> String {
        let mut text = format!("{from}\n");
        let mut last = "";
        for hop in &self.hops {
            // Ingress and egress of a datapath are one box.
            if hop.datapath != last {
                text.push_str(&format!("  |\n[ {} ]", hop.datapath));
                if !hop.inport.is_empty() {
                    text.push_str(&format!("  in by {}", hop.inport));
                }
                text.push('\n');
                last = &hop.datapath;
            }
            for note in &hop.notes {
                text.push_str(&format!("  :  {note}\n"));
            }
        }
        for end in &self.ends {
            let arrow = if matches!(end, End::Delivered { .. }) { "v" } else { "x" };
            text.push_str(&format!("  {arrow}\n{} ({to})\n", end.shown()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"# tcp,reg14=0x5,vlan_tci=0x0000
ingress(dp="ovn-default", inport="a.default")
---------------------------------------------
 0. ls_in_check_port_sec (northd.c:9432): 1, priority 50, uuid 5e4b9b3a
    next;
 6. ls_in_pre_stateful (northd.c:6400): reg0[2] == 1, priority 110, uuid 9d
    ct_lb_mark;

ct_lb_mark
----------
27. ls_in_l2_lkup (northd.c:10700): eth.dst == 00:00:00:01:02:03, priority 50, uuid 3c
    outport = "b.default";
    output;

egress(dp="ovn-default", inport="a.default", outport="b.default")
-----------------------------------------------------------------
11. ls_out_apply_port_sec (northd.c:6044): 1, priority 0, uuid 7f
    output;
    /* output to "b.default", type "" */
"#;

    #[test]
    fn delivery_is_found() {
        let walk = parse_walk(REPORT);
        assert_eq!(walk.ends, [End::Delivered { port: "b.default".into() }]);
        assert_eq!(walk.hops.len(), 2);
        assert_eq!(walk.hops[0].notes, ["ct_lb_mark"]);
        assert_eq!(walk.verdicts(), "verdict: delivered to \"b.default\"\n");
        let drawn = walk.drawn("default/a", "10.16.0.3");
        assert_eq!(drawn.matches("[ ovn-default ]").count(), 1, "{drawn}");
    }

    #[test]
    fn drops_name_the_stage() {
        let report = "ingress(dp=\"s\", inport=\"a\")\n---\n 8. ls_in_acl_eval (northd.c:1): ip4, \
                      priority 2001, uuid 1\n    drop;\n";
        let [End::Dropped { datapath, stage }] = &parse_walk(report).ends[..] else {
            panic!("no drop")
        };
        assert_eq!(datapath, "s");
        assert!(stage.contains("ls_in_acl_eval"));
        let implicit = " 3. ls_in_x: no match (implicit drop)\n";
        assert_eq!(parse_walk(implicit).ends.len(), 1);
    }
}
