//! `explain --from A --to B --port P`: which policy decides. The packet is traced through the
//! logical network; each logical flow of the ACL stages that it meets names the ACL it comes from,
//! and each ACL the object and the feature that made it.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;

use super::{
    Session, Usage,
    cluster::{Cluster, Database, text},
    desired::world,
    explain::whole,
    output::{Tone, emit},
    packet::{Probe, Request, Sender, parse_sender},
    sender::{self, rows},
    trace,
    trace_text::{End, parse_walk},
};
use crate::{
    net::parse_ip,
    ovn::FEATURES,
    ovsdb::{
        datum::{Atom, Datum},
        replica::{Replica, Row},
        row::RowKey,
        schema::nb,
    },
    plan::{Engine, explain_row},
};

/// A question on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub from: Sender,
    pub to: To,
    pub probe: Probe,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Address(std::net::IpAddr),
    Pod(Sender),
}

/// `--from [NS/]POD|node//NODE --to [NS/]POD|node//NODE|IP --port tcp/80|udp/53|icmp`
pub fn parse_question(from: &str, to: &str, port: &str) -> Result<Question, String> {
    let probe = match port.split_once('/') {
        None if port == "icmp" => Probe::Icmp,
        Some((protocol, number)) if protocol == "tcp" || protocol == "udp" => {
            let number = number.parse::<u16>().ok().filter(|number| *number > 0);
            let number = number
                .ok_or_else(|| format!("--port={port}: write a number from 1 to 65535 behind /"))?;
            if protocol == "tcp" { Probe::Tcp(number) } else { Probe::Udp(number) }
        }
        _ => return Err(format!("--port={port}: write tcp/80, udp/53 or icmp")),
    };
    let to_address = parse_ip(to).ok().map(To::Address);
    let to = to_address.map_or_else(|| parse_sender(to).map(To::Pod), Ok)?;
    Ok(Question { from: parse_sender(from)?, to, probe })
}

/// A flow of an ACL stage that the packet met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// `ingress(dp="ovn-default", ...`: the switch and the direction.
    pub at: String,
    pub stage: String,
    /// First digits of the logical flow's UUID.
    pub flow: String,
}

/// Flows of ACLs in the report of ovn-trace(8), in order.
pub fn parse_met(report: &str) -> Vec<Met> {
    let mut at = String::new();
    let mut met = Vec::new();
    for line in report.lines() {
        if line.starts_with("ingress(dp=") || line.starts_with("egress(dp=") {
            let (direction, rest) = line.split_once("(dp=\"").unwrap_or((line, ""));
            at = format!("{direction} of {}", rest.split('"').next().unwrap_or_default());
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(_), Some(stage)) = (words.next(), words.next()) else { continue };
        let Some((_, flow)) = line.rsplit_once("uuid ") else { continue };
        if stage.contains("_acl_") && stage.ends_with("eval") {
            let (stage, flow) = (stage.to_owned(), flow.trim().to_owned());
            met.push(Met { at: at.clone(), stage, flow });
        }
    }
    met
}

/// One ACL that the packet meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Switch and direction: `ingress` is towards the switch, so it is the sender's side.
    pub at: String,
    pub tier: i64,
    pub priority: i64,
    pub action: String,
    pub matching: String,
    pub uuid: String,
    /// Objects and features that want it.
    pub made_by: Vec<String>,
    /// The last word in its place; rules before it passed the packet on to the next tier.
    pub decides: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Decision {
    question: String,
    /// `delivered to "port"` or `dropped in ...`
    verdict: String,
    rules: Vec<Rule>,
}

pub async fn run(session: &Session<'_>, words: [&str; 3]) -> anyhow::Result<u8> {
    let [from, to, port] = words;
    let question = parse_question(from, to, port).map_err(Usage)?;
    let cluster = session.cluster().await?;
    let target = match &question.to {
        To::Address(ip) => *ip,
        To::Pod(pod) => address_of(&cluster, &question, pod).await?,
    };
    let (sender, probe) = (question.from.clone(), question.probe);
    let endpoint = sender::find(&cluster, &sender, probe).await?;
    let request = Request { sender, target, mac: None, probe };
    let flow = endpoint.flow(&cluster, &request).await?;
    let report = trace::logical(&cluster, &endpoint, &flow).await?;
    let hints = hints(&cluster, &parse_met(&report)).await?;
    let replica = whole(&cluster).await?;
    let world = world(&cluster, session.engine).await?;
    let engine = Engine::from_store(FEATURES, &world.store);
    let ends: Vec<String> = parse_walk(&report).ends.iter().map(End::shown).collect();
    let decision = Decision {
        question: format!("{from} -> {to} {port}"),
        verdict: if ends.is_empty() { "no output".to_owned() } else { ends.join(", ") },
        rules: rules(&hints, &replica, &engine),
    };
    emit(session.format, &decision, |decision| described(session, decision))?;
    Ok(0)
}

/// The address of the target that the sender can use: of the family they share.
async fn address_of(
    cluster: &Cluster,
    question: &Question,
    pod: &Sender,
) -> anyhow::Result<std::net::IpAddr> {
    let to = sender::find(cluster, pod, question.probe).await?;
    let from = sender::find(cluster, &question.from, question.probe).await?;
    to.address_for(&from).with_context(|| {
        format!("{} and {} have no address of the same family", from.port, to.port)
    })
}

/// Where, and the first digits of the ACL's UUID that northd notes in the flow.
async fn hints(cluster: &Cluster, met: &[Met]) -> anyhow::Result<Vec<(String, String)>> {
    if met.is_empty() {
        return Ok(Vec::new());
    }
    let at = cluster.leader(Database::Southbound).await?;
    let columns = "--columns=_uuid,external_ids";
    let mut command = vec!["ovn-sbctl", "--no-leader-only", "--format=json", columns];
    let mut known = BTreeMap::new();
    command.extend(["list", "Logical_Flow"]);
    command.extend(met.iter().map(|met| met.flow.as_str()));
    for row in rows(&cluster.text(&at, &command).await?)? {
        let ids = super::cluster::each(&row["external_ids"][1]);
        let hint = ids.filter(|pair| pair[0] == "stage-hint").map(|pair| text(&pair[1])).next();
        if let Some(hint) = hint {
            known.insert(text(&row["_uuid"][1]).to_owned(), hint.to_owned());
        }
    }
    let hint_of = |met: &Met| {
        let found = known.iter().find(|(uuid, _)| uuid.starts_with(&met.flow));
        found.map(|(_, hint)| (met.at.clone(), hint.clone()))
    };
    Ok(met.iter().filter_map(hint_of).collect())
}

fn rules(hints: &[(String, String)], replica: &Replica, engine: &Engine) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    for (at, hint) in hints {
        let found = replica.rows(&nb::ACL).find(|row| row.uuid.to_string().starts_with(hint));
        let Some(acl) = found else { continue };
        if let Some(before) = all.last_mut().filter(|before| before.at == *at) {
            before.decides = false;
        }
        all.push(rule(at, acl, engine));
    }
    all
}

fn rule(at: &str, acl: &Row, engine: &Engine) -> Rule {
    let number = |column| match acl.get(column) {
        Some(Datum::Set(set)) => match set.first() {
            Some(Atom::Integer(number)) => *number,
            _ => 0,
        },
        _ => 0,
    };
    let word = |column| acl.text(column).map(|text| text.to_string()).unwrap_or_default();
    let made_by = match acl.id() {
        None => vec!["somebody else: it carries no identity of Kube-OVN".to_owned()],
        Some(id) => {
            let key = RowKey { table: &nb::ACL, id: id.clone() };
            let why = explain_row(engine.desired(), &key);
            let owners = why.iter().flat_map(|why| why.made_by.iter());
            owners.map(super::explain::owner).collect()
        }
    };
    Rule {
        at: at.to_owned(),
        tier: number(nb::acl::TIER),
        priority: number(nb::acl::PRIORITY),
        action: word(nb::acl::ACTION),
        matching: word(nb::acl::MATCH),
        uuid: acl.uuid.to_string(),
        made_by,
        decides: true,
    }
}

fn described(session: &Session<'_>, decision: &Decision) -> String {
    let mut out = format!("{}: {}\n", decision.question, decision.verdict);
    if decision.rules.is_empty() {
        out.push_str("no rule of a policy, group or subnet concerns it\n");
    }
    for rule in &decision.rules {
        let mark = if rule.decides { "decides" } else { "passes on" };
        let head = format!(
            "{}: tier {} priority {} {} ({mark})",
            rule.at, rule.tier, rule.priority, rule.action
        );
        out.push_str(&session.paint.tone(Tone::Title, &head));
        out.push_str(&format!("\n  match    {}\n  ACL      {}\n", rule.matching, rule.uuid));
        rule.made_by.iter().for_each(|by| out.push_str(&format!("  made by  {by}\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let asked = parse_question("ns/a", "node//n1", "tcp/80").expect("question");
        assert_eq!(asked.probe, Probe::Tcp(80));
        assert_eq!(asked.to, To::Pod(Sender::Node("n1".into())));
        let asked = parse_question("a", "fd00::9", "icmp").expect("question");
        assert_eq!(asked.to, To::Address("fd00::9".parse().expect("address")));
        for (from, to, port) in
            [("a", "b", "sctp/9"), ("a", "b", "tcp/0"), ("a", "b", "tcp"), ("a/b/c", "b", "icmp")]
        {
            assert!(parse_question(from, to, port).is_err(), "{from} {to} {port}");
        }
    }

    #[test]
    fn flows_of_acls_are_found_with_their_place() {
        let report = "ingress(dp=\"ovn-default\", inport=\"a.x\")\n---\n \
            0. ls_in_check_port_sec (northd.c:1): 1, priority 50, uuid 11111111\n    next;\n \
            8. ls_in_acl_eval (northd.c:2): reg8[30..31] == 1 && (ip4), priority 3001, uuid \
            22222222\n    next;\n 9. ls_in_acl_action (northd.c:3): 1, priority 0, uuid 33333333\n\
            egress(dp=\"ovn-default\", inport=\"a.x\", outport=\"b.x\")\n 4. ls_out_acl_eval \
            (northd.c:2): ip4, priority 2000, uuid 44444444\n";
        let met = parse_met(report);
        let shown: Vec<String> =
            met.iter().map(|m| format!("{} {} {}", m.at, m.stage, m.flow)).collect();
        assert_eq!(
            shown,
            [
                "ingress of ovn-default ls_in_acl_eval 22222222",
                "egress of ovn-default ls_out_acl_eval 44444444"
            ]
        );
    }
}
