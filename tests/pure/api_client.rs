//! Requests that nobody answers: an API server whose host lost its power closes nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Method, Uri},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchParams},
};
use kube_ovn::{
    cmd::api_client::client_within,
    controller::{
        ledger::Action,
        publish::{Failure, classify},
        records::apply_action,
    },
};
use tokio::sync::mpsc;

use crate::support::objects::pod_ip;

/// A server that reads requests and keeps silent, with what it read.
async fn silent(limit: Duration) -> (Client, mpsc::UnboundedReceiver<Method>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let sender = Arc::new(sender);
    let answer = move |method: Method, _: Uri| {
        let _ = sender.send(method);
        std::future::pending::<&'static str>()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    (client_within(Config::new(url), limit).unwrap(), requests)
}

/// Ends by its own bound; without it these would wait 310 s.
async fn ends<T>(request: impl Future<Output = kube::Result<T>>) {
    let answer = tokio::time::timeout(Duration::from_secs(60), request).await;
    let Err(error) = answer.expect("it ends") else { panic!("nobody answered") };
    assert_eq!(classify(&error), Failure::Retry);
    assert!(format!("{error:?}").contains("Silence"), "{error:?}");
}

#[tokio::test]
async fn writes_and_reads_end_and_are_tried_again() {
    let (client, _requests) = silent(Duration::from_millis(50)).await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    ends(api.create(&PostParams::default(), &ConfigMap::default())).await;
    ends(api.replace("a", &PostParams::default(), &ConfigMap::default())).await;
    let patch = Patch::Merge(serde_json::json!({}));
    ends(api.patch("a", &PatchParams::default(), &patch)).await;
    ends(api.delete("a", &DeleteParams::default())).await;
    ends(api.get("a")).await;
}

#[tokio::test]
async fn a_record_of_an_address_is_not_waited_for_longer() {
    let (client, _requests) = silent(Duration::from_millis(50)).await;
    let action = Action::Record(pod_ip("default", "a", "ovn-default", "10.16.0.2"));
    let written = apply_action(client, &action, None, None);
    let written = tokio::time::timeout(Duration::from_secs(60), written).await;
    let error = written.expect("it ends").unwrap_err();
    assert_eq!((error.verb, error.name.as_str()), ("create", "a.default"));
}

/// A quiet watch lasts as long as the server lets it.
#[tokio::test]
async fn a_watch_may_be_silent() {
    let (client, mut requests) = silent(Duration::from_millis(1)).await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut watch =
        tokio::spawn(async move { api.watch(&WatchParams::default(), "0").await.is_ok() });
    tokio::select! {
        method = requests.recv() => assert_eq!(method, Some(Method::GET)),
        ended = &mut watch => panic!("it ended: {ended:?}"),
    }
    let ended = tokio::time::timeout(Duration::from_millis(200), &mut watch).await;
    assert!(ended.is_err(), "it ended: {ended:?}");
    watch.abort();
}
