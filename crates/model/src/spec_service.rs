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
