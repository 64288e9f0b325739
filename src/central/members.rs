//! Asks the servers of the cluster what they hold.

use std::{net::IpAddr, time::Duration};

use futures::future::join_all;

use super::{
    config::{Paths, Role, Transport},
    database::Central,
    decide::Peer,
    rpc::{Rpc, RpcError},
    status::{self, Serving},
};
use crate::ovsdb::endpoint::Endpoint;

/// How long a server that has nothing else to do may take to answer.
pub const LIMIT: Duration = Duration::from_secs(3);

/// Asks all other members at once, in the order of NODE_IPS.
pub async fn observe(central: &Central, role: Role) -> Vec<Peer> {
    let peers = central.config.peers().map(|ip| async move {
        match observe_member(central, role, ip).await {
            Ok(serving) => Peer::from(serving),
            Err(error) => {
                tracing::debug!(database = role.database(), %ip, %error, "member is silent");
                Peer::Unreachable
            }
        }
    });
    join_all(peers).await
}

/// What one member serves; `None` when it has no such database.
pub async fn observe_member(
    central: &Central,
    role: Role,
    ip: IpAddr,
) -> Result<Option<Serving>, RpcError> {
    let (host, port) = (ip.to_string(), central.config.ports(role).client);
    let target = match central.config.transport {
        Transport::Tls => Endpoint::Ssl { host, port },
        Transport::Plain => Endpoint::Tcp { host, port },
    };
    query(Rpc::connect(&target, Some(&central.paths.tls_files()), LIMIT).await?, role).await
}

/// What the server of this container serves.
pub async fn observe_local(
    paths: &Paths,
    role: Role,
    limit: Duration,
) -> Result<Option<Serving>, RpcError> {
    query(Rpc::local(&paths.socket(role), limit).await?, role).await
}

async fn query(mut rpc: Rpc, role: Role) -> Result<Option<Serving>, RpcError> {
    let results = rpc.transact("_Server", vec![status::select_database(role.database())]).await?;
    Ok(results.first().and_then(status::parse_database))
}
