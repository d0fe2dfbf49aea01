//! One example of each kind: in its schema for editors, and on the reference page. Tests parse them.

use crate::schema::Kind;

/// A whole document of a kind.
pub(crate) fn of(kind: Kind) -> &'static str {
    match kind {
        Kind::Workspace => WORKSPACE,
        Kind::Overlay => OVERLAY,
        Kind::Machine => MACHINE,
        Kind::App => APP,
        Kind::Setup => SETUP,
        Kind::Service => SERVICE,
        Kind::Volume => VOLUME,
        Kind::Network => NETWORK,
        Kind::Registry => REGISTRY,
    }
}

const WORKSPACE: &str = "kind: Workspace
name: shop
vars: { domain: example.com }
policy: { deletes: 5, data_loss: deny }
base_domain: \"apps.${vars.domain}\"
defaults:
  App:
    env: { TZ: UTC }
    restart: { policy: always, backoff: { initial: 1s, max: 1m } }
";

const OVERLAY: &str = "# plumb.staging.yaml, chosen by `plumb plan --env staging`
kind: Overlay
name: shop-staging
vars: { domain: staging.example.com }
policy: { deletes: 50 }
";

const MACHINE: &str = "kind: Machine
name: web-1
labels: { role: web, zone: fra }
address: { public: 203.0.113.10, private: 10.0.0.10 }
price: { monthly: 4.51, currency: EUR }
";

const APP: &str = "kind: App
name: storefront
machines: { role: web }
replicas: 2
source: { git: https://git.example.com/acme/storefront.git, branch: main }
runtime: node@20
build: [npm ci, npm run build]
processes:
  web: npm start
  worker: { run: npm run worker, replicas: 1 }
ports: { http: auto }
env:
  NODE_ENV: production
  REGION: \"${machine.labels.zone}\"
secrets: [STRIPE_KEY]
uses: [db]
routes: [shop.example.com]
health: /healthz
limits: { memory: 512Mi, cpu: 1.5 }
hooks: { before: { run: npm run migrate, reversible: false } }
";

const SETUP: &str = "kind: Setup
name: base
machines: all
packages: [curl]
files:
  /etc/motd: { content: \"true to the blueprint\\n\" }
  /etc/acme/app.toml: { source: ../files/app.toml, mode: \"0640\", group: adm, notify: [storefront] }
directories:
  /srv/acme: { mode: \"0750\" }
";

const SERVICE: &str = "kind: Service
name: db
machines: data-1
engine: postgres@16
publish: private
backup: { cron: 0 2 * * *, keep: 14, to: { folder: /var/backups/db } }
";

const VOLUME: &str = "kind: Volume
name: uploads
machines: data-1
on_delete: keep
";

const NETWORK: &str = "kind: Network
name: backend
machines: data-1
subnet: 10.20.0.0/24
internal: true
";

const REGISTRY: &str = "kind: Registry
name: acme
host: registry.example.com
username: deploy
password: { secret: REGISTRY_PASSWORD }
";
