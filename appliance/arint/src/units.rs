//! The processes, and which components each is made of (design: one unit per process).

use std::process::ExitCode;

use arbase::{ServiceArgs, Stop, notify_ready, run_service};

/// Why a unit cannot start.
#[derive(Debug, thiserror::Error)]
enum UnitError {
    #[error("cannot start the object store")]
    Arclst(#[source] arclst::StartError),
    #[error("cannot start the key-value store")]
    Arkvd(#[source] arkvd::StartError),
    #[error("cannot start the integrator core")]
    Arsrv(#[source] arsrv::StartError),
    #[error("cannot start the balancer")]
    Arldb(#[source] arldb::StartError),
    #[error("cannot start the admin API")]
    Arwadm(#[source] arwadm::StartError),
    #[error("cannot start the operating system unit")]
    Aros(#[source] aros::StartError),
}

/// `arclst`: object store and key-value store.
pub(crate) fn arclst(args: &ServiceArgs) -> ExitCode {
    let load = |dir: &std::path::Path| Ok((arclst::Config::load(dir)?, arkvd::Config::load(dir)?));
    run_service(
        "arclst",
        args,
        load,
        |_| 2,
        async |(objects, keys), stop: Stop| {
            let objects = arclst::Server::start(objects).await.map_err(UnitError::Arclst)?;
            let keys = arkvd::Server::start(keys).await.map_err(UnitError::Arkvd)?;
            notify_ready();
            tokio::join!(objects.run_until(stop.clone()), keys.run_until(stop));
            Ok::<(), UnitError>(())
        },
    )
}

/// `arsrv`: the integrator core.
pub(crate) fn arsrv(args: &ServiceArgs) -> ExitCode {
    run_service(
        "arsrv",
        args,
        arsrv::Config::load,
        |config| config.threads,
        async |config, stop: Stop| {
            let server = arsrv::Server::start(config).await.map_err(UnitError::Arsrv)?;
            notify_ready();
            server.run_until(stop).await;
            Ok::<(), UnitError>(())
        },
    )
}

/// `arldb`: the balancer.
pub(crate) fn arldb(args: &ServiceArgs) -> ExitCode {
    run_service(
        "arldb",
        args,
        arldb::Config::load,
        |config| config.threads,
        async |config, stop: Stop| {
            let server = arldb::Server::start(config).map_err(UnitError::Arldb)?;
            log::info!(addr:% = server.local_addr(); "serving channels");
            notify_ready();
            server.run_until(stop).await;
            Ok::<(), UnitError>(())
        },
    )
}

/// `arwadm`: the admin API.
pub(crate) fn arwadm(args: &ServiceArgs) -> ExitCode {
    run_service(
        "arwadm",
        args,
        arwadm::Config::load,
        |_| 1,
        async |config, stop: Stop| {
            let server = arwadm::Server::start(config).await.map_err(UnitError::Arwadm)?;
            log::info!(addr:% = server.local_addr(); "serving the admin API");
            notify_ready();
            server.run_until(stop).await;
            Ok::<(), UnitError>(())
        },
    )
}

/// `aros`: the operating system unit.
pub(crate) fn aros(args: &ServiceArgs) -> ExitCode {
    run_service(
        "aros",
        args,
        aros::Config::load,
        |_| 1,
        async |config, stop: Stop| {
            let server = aros::Server::start(config).await.map_err(UnitError::Aros)?;
            notify_ready();
            Box::pin(server.run_until(stop)).await;
            Ok::<(), UnitError>(())
        },
    )
}

/// The stores of all units, as they lie on an image; the key-value store's lies on `state` where there is no `data`.
pub(crate) fn stores() -> [aros::Store; 5] {
    let store = |dir: &str, file, schema| aros::Store { dir: dir.into(), file, schema };
    [
        store("/var/lib/arint/arclst", "objects.sqlite", &arclst::SCHEMA),
        store("/var/lib/arint/arkvd", "log.sqlite", &arkvd::SCHEMA),
        store("/data/arkvd", "log.sqlite", &arkvd::SCHEMA),
        store("/var/lib/arint/arsrv", "messages.sqlite", &arsrv::audit::SCHEMA),
        store("/var/lib/arint/arwadm", "arwadm.sqlite", &arwadm::SCHEMA),
    ]
}
