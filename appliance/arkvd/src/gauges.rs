//! The store's figures for other threads: copied now and then, because the engine belongs to one.

use std::sync::atomic::{AtomicU64, Ordering};

use arbase::metrics::{Page, Type};

use crate::engine::Engine;
use crate::keyspace::DATABASES;

/// What the engine said last.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    keys: AtomicU64,
    memory: AtomicU64,
    limit: AtomicU64,
    clients: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    commands: AtomicU64,
    expired: AtomicU64,
    /// 1: changes come to disk.
    writes: AtomicU64,
}

impl Gauges {
    /// Copies the figures.
    pub(crate) fn take(&self, engine: &Engine) {
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let keys: usize = (0..DATABASES).map(|db| engine.keyspace.counts(db).0).sum();
        let figures = &engine.figures;
        let values = [
            (&self.keys, number(keys)),
            (&self.memory, number(engine.keyspace.used())),
            (&self.limit, number(engine.keyspace.limit())),
            (&self.clients, number(engine.clients.len())),
            (&self.connections, figures.connections),
            (&self.refused, figures.refused),
            (&self.commands, figures.commands),
            (&self.expired, figures.expired),
            (&self.writes, u64::from(engine.log.progress().borrow().fault.is_none())),
        ];
        for (to, value) in values {
            to.store(value, Ordering::Relaxed);
        }
    }

    /// Writes what was copied last.
    pub(crate) fn write(&self, page: &mut Page) {
        let families = [
            ("arkvd_keys", Type::Gauge, "Keys in all databases.", &self.keys),
            ("arkvd_memory_bytes", Type::Gauge, "What keys and values take.", &self.memory),
            ("arkvd_memory_limit_bytes", Type::Gauge, "What they may take.", &self.limit),
            ("arkvd_clients", Type::Gauge, "Clients connected now.", &self.clients),
            ("arkvd_connections_total", Type::Counter, "Connections taken.", &self.connections),
            (
                "arkvd_refused_connections_total",
                Type::Counter,
                "Connections above the limit.",
                &self.refused,
            ),
            ("arkvd_commands_total", Type::Counter, "Commands carried out.", &self.commands),
            ("arkvd_expired_keys_total", Type::Counter, "Keys whose time passed.", &self.expired),
            ("arkvd_writable", Type::Gauge, "Whether changes come to disk.", &self.writes),
        ];
        for (name, of, help, value) in families {
            page.single(name, of, help, value.load(Ordering::Relaxed));
        }
    }
}
