//! What to write instead, for the structural check: examples of keys that are missing, and how to write what has the
//! wrong type.

use serde_json::Value;

use crate::schema::Kind;

/// How a missing key is written.
pub(crate) fn example(kind: Kind, key: &str) -> Option<&'static str> {
    Some(match (kind, key) {
        (Kind::Workspace, "name") => "name: shop",
        (Kind::Machine, "name") => "name: web-1",
        (Kind::App, "name") => "name: hello",
        (Kind::Setup, "name") => "name: base",
        (Kind::Service, "name") => "name: db",
        (Kind::Volume, "name") => "name: uploads",
        (Kind::Network, "name") => "name: backend",
        (Kind::Registry, "name") => "name: acme",
        (Kind::Registry, "host") => "host: registry.example.com",
        (Kind::Service, "machines") => "machines: data-1",
        (_, "machines") => "machines: all",
        (_, "engine") => "engine: postgres@16",
        (_, "cron") => "cron: 15 3 * * *",
        (_, "to") => "to: { folder: /var/backups/db }",
        (_, "folder") => "folder: /var/backups/db",
        (_, "host") => "host: shop.example.com",
        (_, "path") => "path: ../web",
        (_, "run") => "run: ./server",
        (_, "port") => "port: 8080",
        (_, "monthly") => "monthly: 4.51",
        (_, "currency") => "currency: EUR",
        _ => return None,
    })
}

/// How a text is made out of a number, or out of true and false. `whole` is a number without a point.
pub(crate) fn quote_it(pointer: &str, written: &str, whole: bool) -> String {
    match pointer.rsplit('/').next() {
        Some(
            "grace" | "stop" | "initial" | "max" | "interval" | "timeout" | "min_healthy"
            | "deadline",
        ) if whole => {
            format!("give it a unit: `{written}s`, or `ms`, `m`, `h`")
        }
        Some("max_size" | "log" | "memory") if whole => {
            format!("give it a unit: `{written}Mi`, or `Ki`, `Gi`")
        }
        Some("mode") if whole => {
            let digits = written.trim_start_matches("0o");
            format!("quote it: \"{digits:0>4}\"")
        }
        Some("runtime") => format!("write it like `node@{written}`"),
        Some("engine") => format!("write it like `postgres@{written}`"),
        _ => format!("quote it: \"{written}\""),
    }
}

/// The form of a value that is often taken for another one.
pub(crate) fn form(pointer: &str, value: &Value) -> Option<&'static str> {
    Some(match (pointer, value) {
        ("/source", Value::String(_)) => "write `source: { path: ../folder }`",
        ("/routes", Value::String(_)) => "write a list: `routes: [shop.example.com]`",
        ("/uses", Value::String(_)) => "write a list: `uses: [db]`",
        ("/secrets", Value::String(_)) => "write a list: `secrets: [STRIPE_KEY]`",
        ("/networks", Value::String(_)) => "write a list: `networks: [backend]`",
        ("/packages", Value::String(_)) => "write a list: `packages: [curl]`",
        ("/volumes", Value::Array(_)) => "name each: `volumes: { data: /var/lib/data }`",
        ("/ports", Value::Array(_) | Value::Number(_)) => "name each: `ports: { http: 8080 }`",
        ("/env", Value::Array(_)) => "write a mapping: `env: { LEVEL: debug }`",
        ("/hooks", Value::String(_)) => "say when: `hooks: { before: npm run migrate }`",
        ("/price", Value::Number(_)) => "write `price: { monthly: 4.51, currency: EUR }`",
        ("/address", Value::String(_)) => "write `address: { private: 10.0.0.10 }`",
        (at, Value::String(_)) if at.ends_with("/notify") => "write a list: `notify: [storefront]`",
        (at, Value::String(_)) if at.ends_with("/to") => "write `to: { folder: /var/backups/db }`",
        _ => return None,
    })
}

/// Whether what stands at a place may be a credential by mistake: what is wrong with it is said by `convert`, which
/// keeps it out of sight.
pub(crate) fn is_secret(kind: Kind, pointer: &str) -> bool {
    kind == Kind::Registry && (pointer == "/password" || pointer.starts_with("/password/"))
}
