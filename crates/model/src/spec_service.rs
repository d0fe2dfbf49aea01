//! Specs of shared infrastructure and of the routes that lead to apps.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::resource_spec;
use crate::spec::{RunState, WorkDir, nothing};
use crate::spec_container::OnDelete;
use crate::spec_parts::SecretRef;

/// What a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// MongoDB.
    Mongodb,
    /// RabbitMQ.
    Rabbitmq,
    /// Memcached.
    Memcached,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Postgres,
        Self::Mysql,
        Self::Mariadb,
        Self::Redis,
        Self::Valkey,
        Self::Mongodb,
        Self::Rabbitmq,
        Self::Memcached,
    ];

    /// The word of the blueprint language.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Mongodb => "mongodb",
            Self::Rabbitmq => "rabbitmq",
            Self::Memcached => "memcached",
        }
    }

    /// The port that its clients expect.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql | Self::Mariadb => 3306,
            Self::Redis | Self::Valkey => 6379,
            Self::Mongodb => 27017,
            Self::Rabbitmq => 5672,
            Self::Memcached => 11211,
        }
    }

    /// The scheme of its URLs.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql | Self::Mariadb => "mysql",
            Self::Redis | Self::Valkey => "redis",
            Self::Mongodb => "mongodb",
            Self::Rabbitmq => "amqp",
            Self::Memcached => "memcached",
        }
    }
}

/// What becomes of a service's data when it gets another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataAfter {
    /// It is as it was: the major version is the same, or there is no data.
    Same,
    /// The new version changes its form when it starts, and the old one cannot read it afterwards.
    Converted,
    /// The new version cannot read it.
    Unreadable,
}

impl Engine {
    /// What becomes of the data that version `old` wrote under version `new`. Versions that are no numbers are taken for
    /// the same.
    ///
    /// PostgreSQL's data directory is that of one major version, the first number
    /// (<https://www.postgresql.org/docs/current/upgrading.html>); MySQL and MariaDB change the form of their data between
    /// series, the first two numbers, and the others between first numbers. None of them goes back.
    #[must_use]
    pub fn data_after(self, old: &str, new: &str) -> DataAfter {
        let parts = match self {
            Self::Memcached => return DataAfter::Same,
            Self::Mysql | Self::Mariadb => 2,
            _ => 1,
        };
        let (old, new) = (series(old, parts), series(new, parts));
        // `8` says nothing of the second number.
        let told = old.len().min(new.len());
        match new[..told].cmp(&old[..told]) {
            std::cmp::Ordering::Equal => DataAfter::Same,
            std::cmp::Ordering::Greater if self != Self::Postgres => DataAfter::Converted,
            _ => DataAfter::Unreadable,
        }
    }
}

/// The first numbers of a version, at most so many.
fn series(version: &str, parts: usize) -> Vec<u32> {
    let numbers = version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    numbers.take(parts).collect()
}

/// When and where a service's data is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Five fields, as crontab(5) has them.
    pub cron: String,
    /// The IANA name of the time zone that they are read in.
    pub timezone: String,
    /// So many backups are kept.
    pub keep: u32,
    /// The absolute path of the folder that they are written to.
    pub folder: String,
}

resource_spec! {
    /// Shared infrastructure such as a database.
    pub struct ServiceSpec: Service {
        /// What it is.
        engine: Engine => Replace, By("the mark in its data folder"), Public;
        /// The version that is wanted, as it is written.
        wanted: String => InPlace, Cannot("it only says how the version was found"), Public;
        /// The exact version; none where nobody has resolved it yet.
        version: Option<String> => Restart, By("what it says of itself"), Public;
        /// The address of the machine that it listens on.
        address: String => Restart, By("its configuration"), Public;
        /// The port that it listens on.
        port: u16 => Restart, By("its configuration"), Public;
        /// The user that its clients are.
        user: String => InPlace, By("a query"), Public;
        /// The database that they use.
        database: String => InPlace, By("a query"), Public;
        /// The password of that user: a secret that Plumb makes.
        password: SecretRef => InPlace, Cannot("only its hash is kept by the service"), Sensitive;
        /// When and where it is backed up.
        #[serde(default, skip_serializing_if = "nothing")]
        backup: Option<Backup> => InPlace, Cannot("it is the agent's own doing, and takes effect at the next time"), Public;
        /// What becomes of its data when it is in no blueprint any more.
        on_delete: OnDelete => InPlace, Cannot("it says what the next plan may do"), Public;
        /// Whether it should run.
        state: RunState => Restart, By("its process"), Public;
    }
}

impl ServiceSpec {
    /// The version, as exactly as it is known.
    #[must_use]
    pub fn best_version(&self) -> &str {
        self.version.as_deref().unwrap_or(&self.wanted)
    }

    /// What becomes of the data of `old` under this one, if both are of one engine. A part of what a change of `version`
    /// costs that its row of the coverage table cannot say, since it depends on both values.
    #[must_use]
    pub fn data_after(&self, old: &Self) -> DataAfter {
        if self.engine != old.engine {
            return DataAfter::Unreadable;
        }
        self.engine
            .data_after(old.best_version(), self.best_version())
    }
}

/// What answers behind a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// Each `HOST:PORT`, in turn.
    Upstreams(BTreeSet<String>),
    /// The files of a folder.
    Files(WorkDir),
}

resource_spec! {
    /// What the machine's web server answers with.
    pub struct RouteSpec: Route {
        /// The hosts that it answers for; the first is the primary one.
        hosts: Vec<String> => Reload, By("the web server's configuration"), Public;
        /// The path that requests must begin with; `/` is all.
        path: String => Reload, By("the web server's configuration"), Public;
        /// What answers.
        target: RouteTarget => Reload, By("the web server's configuration"), Public;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_a_version_as_far_as_its_engine_lets_it() {
        use DataAfter::{Converted, Same, Unreadable};
        for (engine, old, new, expected) in [
            (Engine::Postgres, "16.3", "16.4", Same),
            (Engine::Postgres, "16", "16.4", Same),
            (Engine::Postgres, "16.3", "17", Unreadable),
            (Engine::Postgres, "17.0", "16.3", Unreadable),
            (Engine::Postgres, "16.3", "latest", Same),
            (Engine::Mysql, "8.0.36", "8.0.37", Same),
            (Engine::Mysql, "8.0.36", "8.4.0", Converted),
            (Engine::Mysql, "8.0.36", "8", Same),
            (Engine::Mariadb, "11.4.2", "10.11.8", Unreadable),
            (Engine::Redis, "6.2.14", "7.2.4", Converted),
            (Engine::Redis, "7.2.4", "6.2.14", Unreadable),
            (Engine::Memcached, "1.6.0", "2.0.0", Same),
        ] {
            let found = engine.data_after(old, new);
            assert_eq!(found, expected, "{engine:?} {old} {new}");
        }
    }
}
