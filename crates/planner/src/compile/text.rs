//! Rendering texts: every reference becomes what it stands for where it is used. Only what must not be known before the
//! start stays symbolic: the release, and passwords.

use plumb_blueprint::{Reference, Segment};
use plumb_model::plan::Origin;
use plumb_model::state::{Commit, MachineInfo};
use plumb_model::{OwnerName, PortName, symbolic};

use super::context::Context;
use super::reach::{From, Reach, Spot, Unreachable, published};
use super::service::Facts;

/// What references can be resolved against.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub from: From<'a>,
    pub info: &'a MachineInfo,
    pub reach: &'a Reach<'a>,
    pub commit: Option<&'a Commit>,
    /// Whether something is left to be filled in at the start; otherwise the text is final.
    pub symbolic: bool,
}

impl Scope<'_> {
    /// The same place, for a text that is final: nothing in it waits for a start.
    pub fn last(self) -> Self {
        Self {
            symbolic: false,
            ..self
        }
    }
}

/// A reference without a value: what is wrong, and what to do.
pub(super) type NoValue = (String, String);

/// Renders a text, or says which reference has no value here and what to do.
pub(super) fn render(text: &[Segment], scope: &Scope<'_>) -> Result<String, NoValue> {
    let mut out = String::new();
    for segment in text {
        match segment {
            Segment::Literal(literal) if scope.symbolic => {
                symbolic::push_literal(&mut out, literal);
            }
            Segment::Literal(literal) => out.push_str(literal),
            Segment::Ref(Reference::Release) if scope.symbolic => out.push_str(symbolic::RELEASE),
            Segment::Ref(Reference::ServiceUrl(service)) => out.push_str(&url(service, scope)?),
            Segment::Ref(Reference::ServicePassword(service)) => {
                let facts = known(service, scope)?;
                out.push_str(&password(service, facts, scope)?);
            }
            Segment::Ref(reference) => {
                let value = resolve(reference, scope)?;
                if scope.symbolic {
                    symbolic::push_literal(&mut out, &value);
                } else {
                    out.push_str(&value);
                }
            }
        }
    }
    Ok(out)
}

/// Whether a text refers to something that holds a credential.
pub(super) fn is_secret(text: &[Segment]) -> bool {
    text.iter().any(|segment| {
        matches!(
            segment,
            Segment::Ref(Reference::ServiceUrl(_) | Reference::ServicePassword(_))
        )
    })
}

impl Context<'_> {
    /// Renders a text; a reference without a value is a problem, and the text is empty then.
    pub fn text(&mut self, text: &[Segment], scope: &Scope<'_>, origin: Option<Origin>) -> String {
        render(text, scope).unwrap_or_else(|(message, hint)| {
            self.problem(message, origin, hint);
            String::new()
        })
    }

    /// Renders a command, whose arguments are final.
    pub fn command(
        &mut self,
        argv: &[Vec<Segment>],
        scope: &Scope<'_>,
        origin: Option<&Origin>,
    ) -> Vec<String> {
        argv.iter()
            .map(|arg| self.text(arg, &scope.last(), origin.cloned()))
            .collect()
    }
}

fn resolve(reference: &Reference, scope: &Scope<'_>) -> Result<String, NoValue> {
    let machine = scope.from.machine;
    match reference {
        Reference::MachineName => Ok(machine.to_string()),
        Reference::MachineLabel(label) => scope.info.labels.get(label).cloned().ok_or_else(|| {
            (
                format!("machine `{machine}` has no label `{label}`"),
                format!("add `labels: {{ {label}: … }}` to machine `{machine}`"),
            )
        }),
        Reference::MachineAddress => {
            let address = &scope.info.address;
            let found = address.get("private").or_else(|| address.get("public"));
            found.cloned().ok_or_else(|| {
                (
                    format!("machine `{machine}` declares no address"),
                    format!("add `address: {{ private: … }}` to machine `{machine}`"),
                )
            })
        }
        Reference::AppHost(app) => main(app, scope).map(|spot| spot.host),
        Reference::AppPort(app, port) => {
            app_spot(app, port, scope).map(|spot| spot.port.to_string())
        }
        Reference::AppUrl(app) => main(app, scope).map(|spot| format!("http://{spot}")),
        Reference::ServiceHost(service) => spot(service, scope).map(|(_, spot)| spot.host),
        Reference::ServicePort(service) => {
            spot(service, scope).map(|(_, spot)| spot.port.to_string())
        }
        Reference::ServiceUser(service) => known(service, scope).map(|f| f.user.clone()),
        Reference::ServiceDatabase(service) => known(service, scope).map(|f| f.database.clone()),
        Reference::Release => Err((
            "`${release}` has no value here".to_owned(),
            "use it in an app's `env`, and read the variable".to_owned(),
        )),
        Reference::Commit => Ok(scope
            .commit
            .map_or_else(|| "uncommitted".to_owned(), |c| c.id.clone())),
        Reference::ServiceUrl(_) | Reference::ServicePassword(_) => {
            unreachable!("what holds a credential is rendered before")
        }
    }
}

/// How a service is reached, with what holds its credential left symbolic.
fn url(service: &OwnerName, scope: &Scope<'_>) -> Result<String, NoValue> {
    let (facts, spot) = spot(service, scope)?;
    let scheme = facts.engine.scheme();
    if !facts.has_password() {
        return Ok(symbolic::literal(&format!("{scheme}://{spot}")));
    }
    let password = password(service, facts, scope)?;
    let user = symbolic::literal(&facts.user);
    let path = if facts.has_database() {
        format!("/{}", symbolic::literal(&facts.database))
    } else {
        String::new()
    };
    Ok(format!("{scheme}://{user}:{password}@{spot}{path}"))
}

fn password(service: &OwnerName, facts: &Facts<'_>, scope: &Scope<'_>) -> Result<String, NoValue> {
    if scope.symbolic {
        return Ok(facts.symbolic_password());
    }
    Err((
        format!("the credential of service `{service}` would be in the open here"),
        "use it in `env`, and read the variable".to_owned(),
    ))
}

fn known<'a>(service: &OwnerName, scope: &Scope<'a>) -> Result<&'a Facts<'a>, NoValue> {
    scope.reach.services.get(service).ok_or_else(|| {
        (
            format!("there is no service `{service}`"),
            format!("add a blueprint of `kind: Service` named `{service}`"),
        )
    })
}

fn spot<'a>(service: &OwnerName, scope: &Scope<'a>) -> Result<(&'a Facts<'a>, Spot), NoValue> {
    let facts = known(service, scope)?;
    match scope.reach.service(facts, scope.from) {
        Some(spot) => Ok((facts, spot)),
        None => Err((
            format!(
                "service `{service}` runs on machine `{}` and listens {}, which {} cannot reach",
                facts.machine,
                published(facts.publish),
                scope.from
            ),
            format!(
                "add `publish: private` to service `{service}`, or run both on the same machine"
            ),
        )),
    }
}

fn main(app: &OwnerName, scope: &Scope<'_>) -> Result<Spot, NoValue> {
    let port = scope
        .reach
        .main_port(app)
        .ok_or_else(|| no_port(app, scope))?;
    app_spot(app, port, scope)
}

fn app_spot(app: &OwnerName, port: &PortName, scope: &Scope<'_>) -> Result<Spot, NoValue> {
    scope
        .reach
        .app(app, port, scope.from)
        .map_err(|why| match why {
            Unreachable::Nowhere => no_port(app, scope),
            Unreachable::At(other, publish) => (
                format!(
                    "app `{app}` runs on machine `{other}` and publishes its ports {}, \
                     which {} cannot reach",
                    published(publish),
                    scope.from
                ),
                format!(
                    "add `publish: private` to the port `{port}` of `{app}`, or run both on the same machine"
                ),
            ),
        })
}

fn no_port(app: &OwnerName, scope: &Scope<'_>) -> NoValue {
    (
        format!(
            "app `{app}` has no such port on machine `{}`",
            scope.from.machine
        ),
        format!("add `ports: {{ http: auto }}` to app `{app}`"),
    )
}
