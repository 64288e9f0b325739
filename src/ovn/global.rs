//! What the whole translation relies on: options of NB_Global, sets that many owners fill.

use crate::{
    api::{Settings, names},
    net::Family,
    ovsdb::{
        row::{RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{VENDOR, keys};

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let Some(settings) = view.get::<Settings>(key) else { return Output::default() };
    let row = RowBuilder::new(&RowKey::singleton(&nb::NB_GLOBAL))
        .set(nb::nb_global::IPSEC, settings.enable_ipsec)
        // Other keys of `options` belong to northd, the IC controller and the administrator.
        .merge(nb::nb_global::OPTIONS, [("use_ct_inv_match", "false")]);
    let mut facts = vec![row.fact()];
    // Nodes put their addresses in: what matches nodes does not change with their number.
    for family in Family::BOTH {
        let set = RowBuilder::new(&keys::node_addresses(family))
            .set(nb::address_set::NAME, names::node_address_set(family))
            .map(nb::address_set::EXTERNAL_IDS, [VENDOR])
            .contributed(nb::address_set::ADDRESSES);
        facts.push(set.fact());
    }
    Output { facts, ..Output::default() }
}
