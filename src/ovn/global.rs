//! NB_Global: options that the whole translation relies on.

use crate::{
    api::Settings,
    ovsdb::{
        row::{RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let Some(settings) = view.get::<Settings>(key) else { return Output::default() };
    let row = RowBuilder::new(&RowKey::singleton(&nb::NB_GLOBAL))
        .set(nb::nb_global::IPSEC, settings.enable_ipsec)
        // Other keys of `options` belong to northd, the IC controller and the administrator.
        .merge(nb::nb_global::OPTIONS, [("use_ct_inv_match", "false")]);
    Output { facts: vec![row.fact()], ..Output::default() }
}
