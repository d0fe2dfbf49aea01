//! The rules without a network: who passes, by which rule, and into which workspace.

use std::collections::BTreeSet;

use plumb_ledger::{MachineIdentity, MemoryStore, TokenKind, TokenRecord};
use plumb_model::{Hash, Lineage, Secret, Timestamp};

use super::*;
use crate::access::RULES;
use crate::identity::Identity;
use crate::signing::Signer;
use crate::tenants::{Opened, Plane};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn token(id: &str, kind: TokenKind) -> (TokenRecord, String) {
    let secret = id.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let secret = format!("{secret:0>64}");
    let record = TokenRecord {
        id: id.to_owned(),
        secret: Hash::of(secret.as_bytes()),
        kind,
        created: now(),
        expires_at: None,
        last_used: None,
        consumed: None,
    };
    let token = ApiToken {
        id: id.to_owned(),
        secret: Secret::new(secret),
    };
    (record, format!("Bearer {}", token.text().expose()))
}

fn api(id: &str, role: Role) -> (TokenRecord, String) {
    let role = role.as_str().to_owned();
    token(id, TokenKind::Api { role, all: false })
}

fn for_all(id: &str) -> (TokenRecord, String) {
    let role = Role::Admin.as_str().to_owned();
    token(id, TokenKind::Api { role, all: true })
}

fn name(workspace: &str) -> WorkspaceName {
    WorkspaceName::new(workspace).unwrap()
}

fn plane(temp: &tempfile::TempDir, store: Arc<dyn plumb_ledger::Store>) -> Plane {
    Plane {
        data: temp.path().to_owned(),
        store,
        lineage: Lineage::from_random([1; 16]),
        signer: Arc::new(Signer::open(temp.path()).unwrap()),
        keys: Arc::new(crate::secrets::keys::Keys::open(temp.path(), &|_| None).unwrap()),
        now,
        run: "a test".to_owned(),
    }
}

/// A gate over one workspace, `shop`, with one token.
fn gate(
    temp: &tempfile::TempDir,
    store: Arc<dyn plumb_ledger::Store>,
    token: &TokenRecord,
) -> Gate {
    let plane = plane(temp, store);
    plane.ledger(&name("shop")).put_token(token).unwrap();
    let home = Opened::read(&plane, &name("shop"), &temp.path().join("blobs")).unwrap();
    let identity = temp.path().join("identity");
    let authorities = Authorities::open(&identity, &plane.lineage, Timestamp::now()).unwrap();
    let tenants = Arc::new(Tenants::new(plane.clone(), home.serve(&plane)));
    let authorities = Arc::new(authorities);
    let limits = Arc::new(Limits::new(crate::limits::LimitRates::default()));
    let store = Arc::new(crate::measured::Measured::new(MemoryStore::default()));
    Gate {
        operations: Operations {
            tenants: tenants.clone(),
            authorities: authorities.clone(),
            store: store.clone(),
            metrics: Arc::default(),
            limits: limits.clone(),
            now,
            started: now(),
            backups: Arc::new(crate::backup::Source::new(
                temp.path(),
                plane.lineage.clone(),
                name("shop"),
                now,
                store,
            )),
        },
        tenants,
        authorities,
        limits,
        now,
        started: Instant::now(),
    }
}

/// Two workspaces, `shop` (the home) and `shop2`, each with these tokens and machines.
fn tenants(shop: (&[&TokenRecord], &[&MachineIdentity]), shop2: &[&TokenRecord]) -> Tenants {
    let temp = tempfile::tempdir().unwrap();
    let plane = plane(&temp, Arc::new(MemoryStore::default()));
    let open = |workspace: &str, tokens: &[&TokenRecord], machines: &[&MachineIdentity]| {
        let ledger = plane.ledger(&name(workspace));
        for token in tokens {
            ledger.put_token(token).unwrap();
        }
        for machine in machines {
            ledger.put_identity(machine).unwrap();
        }
        let blobs = temp.path().join(workspace);
        let opened = Opened::read(&plane, &name(workspace), &blobs).unwrap();
        opened.serve(&plane)
    };
    let tenants = Tenants::new(plane.clone(), open("shop", shop.0, shop.1));
    tenants.add(open("shop2", shop2, &[]));
    tenants
}

/// What a call comes to: nothing proven, or the name and the workspace of who called; or why not.
fn called(
    tenants: &Tenants,
    path: &str,
    bearer: Option<&str>,
    workspace: Option<&str>,
) -> Result<Option<(String, String)>, Reason> {
    let shown = Shown {
        authorization: bearer.map(str::as_bytes),
        workspace: workspace.map(str::as_bytes),
        certificate: None,
    };
    match check(tenants, rule(path), &shown) {
        Ok(Proven::Nothing) => Ok(None),
        Ok(Proven::Caller(caller, tenant, _)) => {
            Ok(Some((caller.name, tenant.workspace.to_string())))
        }
        Ok(Proven::Machine(machine, tenant)) => Ok(Some((
            machine.name.to_string(),
            tenant.workspace.to_string(),
        ))),
        Err(refused) => Err(refused.refusal.reason),
    }
}

/// Threat 22, and 18: nothing that is not listed passes. Mutation: drop a row of [`RULES`], or let `check` return
/// `Ok(Proven::Nothing)` where `rule` finds none.
#[tokio::test]
async fn every_method_that_is_served_has_one_rule_and_any_other_path_is_denied() {
    let ruled: BTreeSet<&str> = RULES.iter().map(|row| row.path).collect();
    assert_eq!(ruled.len(), RULES.len(), "a path has two rules");
    for method in plumb_wire::METHODS {
        assert!(ruled.contains(method), "{method} has no rule");
    }
    for path in ruled.iter().filter(|p| p.starts_with("/plumb.v1.")) {
        assert!(plumb_wire::METHODS.contains(path), "{path} is not served");
    }
    let (record, bearer) = for_all("root");
    let tenants = tenants((&[&record], &[]), &[]);
    for path in [
        "",
        "/",
        "/plumb.v1.ControlPlane/Drop",
        "/plumb.v1.ControlPlane/Plan/",
        "//plumb.v1.ControlPlane/Plan",
        "/plumb.v1.controlplane/plan",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let got = called(&tenants, path, Some(&bearer), None);
        assert_eq!(got, Err(Reason::NoSuchMethod), "{path}");
    }
}

/// Threat 22: every RPC × every role × nobody. Mutation: compare roles with `<=`, or leave the comparison out.
#[tokio::test]
async fn every_rpc_takes_exactly_the_roles_that_reach_it() {
    let tokens: Vec<_> = Role::ALL
        .iter()
        .map(|role| (*role, api(role.as_str(), *role)))
        .collect();
    let records: Vec<_> = tokens.iter().map(|(_, (record, _))| record).collect();
    let tenants = tenants((&records, &[]), &[]);
    for row in RULES {
        let path = row.path;
        let nobody = called(&tenants, path, None, None);
        match row.rule {
            Rule::Public | Rule::ProofInMessage => assert_eq!(nobody, Ok(None)),
            Rule::Machine | Rule::Role(_) | Rule::AdminOfAll => {
                assert_eq!(nobody, Err(Reason::NoCredential), "{path}")
            }
        }
        for (role, (_, bearer)) in &tokens {
            let got = called(&tenants, path, Some(bearer), None);
            match row.rule {
                Rule::Public | Rule::ProofInMessage => {}
                // A token never stands in for a certificate.
                Rule::Machine => assert_eq!(got, Err(Reason::NoCredential), "{path}"),
                Rule::Role(least) if *role >= least => assert!(got.is_ok(), "{path} {role}"),
                // Not one of them is for all workspaces.
                Rule::Role(_) | Rule::AdminOfAll => {
                    assert_eq!(got, Err(Reason::RoleTooLow), "{path} {role}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_token_counts_only_whole_unexpired_and_of_the_right_kind() {
    let (good, bearer) = api("good", Role::Admin);
    let (join, join_bearer) = token("joiner", TokenKind::Join { machine: None });
    let (mut old, old_bearer) = api("old", Role::Admin);
    old.expires_at = Some(now());
    let god = TokenKind::Api {
        role: "god".into(),
        all: true,
    };
    let (strange, strange_bearer) = token("strange", god);
    let tenants = tenants((&[&good, &join, &old, &strange], &[]), &[]);
    let check = |bearer: &str| {
        called(
            &tenants,
            "/plumb.v1.ControlPlane/GetInfo",
            Some(bearer),
            None,
        )
    };
    assert!(check(&bearer).is_ok());
    let other = api("other", Role::Admin).1;
    let foreign = bearer.replace("good", "gooo");
    let mut flipped = bearer.clone();
    flipped.pop();
    flipped.push('f');
    for bad in [
        join_bearer.as_str(),
        &old_bearer,
        &strange_bearer,
        &other,
        &foreign,
        &flipped,
        &bearer[..bearer.len() - 1],
        "Bearer ",
        "",
        bearer.trim_start_matches("Bearer "),
    ] {
        assert_eq!(check(bad), Err(Reason::BadToken), "{bad}");
    }
}

/// Threats 22 and 23: a token is for one workspace, by exact match, and only one that was made for all goes anywhere.
/// Mutation: in `asked_workspace` compare with `starts_with`, or leave the look at `all` out; in `check_token` take
/// the workspace that the header names without asking.
#[tokio::test]
async fn a_token_goes_into_its_own_workspace_and_no_other_however_like_the_name() {
    let (own, bearer) = api("own", Role::Admin);
    let (theirs, their_bearer) = api("theirs", Role::Admin);
    let (all, all_bearer) = for_all("all");
    let tenants = tenants((&[&own, &all], &[]), &[&theirs]);
    let get = |bearer: &str, workspace: Option<&str>| {
        let path = "/plumb.v1.ControlPlane/GetInfo";
        called(&tenants, path, Some(bearer), workspace)
            .map(|found| found.expect("the rule asks for a token").1)
    };
    let into = |workspace: &str| Ok(workspace.to_owned());
    assert_eq!(get(&bearer, None), into("shop"));
    assert_eq!(get(&bearer, Some("shop")), into("shop"));
    assert_eq!(get(&their_bearer, None), into("shop2"));
    for other in [
        "shop2", "sho", "shop ", "Shop", "", "*", "shop*", "sh?p", "../shop", "shop/", "nowhere",
    ] {
        assert_eq!(
            get(&bearer, Some(other)),
            Err(Reason::OtherWorkspace),
            "{other}"
        );
    }
    assert_eq!(
        get(&their_bearer, Some("shop")),
        Err(Reason::OtherWorkspace)
    );
    assert_eq!(get(&all_bearer, None), into("shop"));
    assert_eq!(get(&all_bearer, Some("shop2")), into("shop2"));
    for none in ["shop3", "sho", "*", ""] {
        assert_eq!(
            get(&all_bearer, Some(none)),
            Err(Reason::NotFound),
            "{none}"
        );
    }
}

/// Threat 22 (a foreign workspace) and 19. Mutation: leave one of the comparisons of `check_peer` or
/// `enrolled_key` out.
#[tokio::test]
async fn a_certificate_counts_only_here_for_the_enrolled_key_of_a_machine_that_was_not_removed() {
    let machine = MachineName::new("web-1").unwrap();
    let key = |c: &str| KeyDigest(c.repeat(64));
    let record = MachineIdentity {
        machine: machine.clone(),
        public_key_sha256: key("a").0,
        certificate_serial: "1".into(),
        enrolled_at: now(),
        removed: None,
        seen: None,
    };
    let tenants = tenants((&[], &[&record]), &[]);
    let access = tenants.home().access.clone();
    let good = Peer {
        identity: Identity {
            lineage: Lineage::from_random([1; 16]),
            workspace: name("shop"),
            machine: machine.clone(),
        },
        key: key("a"),
        issuer: CaKeyId::default(),
        not_after: now(),
    };
    let check = |change: &dyn Fn(&mut Peer), expected: Option<Reason>| {
        let mut peer = good.clone();
        change(&mut peer);
        let got = check_peer(&tenants, &peer).err().map(|r| r.reason);
        assert_eq!(got, expected, "{peer:?}");
    };
    check(&|_| {}, None);
    check(&|p| p.key = key("b"), Some(Reason::WrongKey));
    // One that exists, and one that does not.
    check(
        &|p| p.identity.workspace = name("shop2"),
        Some(Reason::WrongKey),
    );
    check(
        &|p| p.identity.workspace = name("shop3"),
        Some(Reason::BadCertificate),
    );
    check(
        &|p| p.identity.lineage = Lineage::from_random([2; 16]),
        Some(Reason::BadCertificate),
    );
    check(
        &|p| p.identity.machine = MachineName::new("web-2").unwrap(),
        Some(Reason::WrongKey),
    );
    access.machine_stored(MachineIdentity {
        removed: Some(now()),
        ..record.clone()
    });
    check(&|_| {}, Some(Reason::MachineRemoved));
    // The name is used again: the old key has nothing to do with it.
    access.machine_stored(MachineIdentity {
        public_key_sha256: key("c").0,
        ..record
    });
    check(&|_| {}, Some(Reason::WrongKey));
    check(&|p| p.key = key("c"), None);
}

/// A store whose disk can be filled.
#[derive(Default)]
struct Disk {
    store: MemoryStore,
    full: std::sync::atomic::AtomicBool,
    /// It knows that it takes nothing.
    knows: std::sync::atomic::AtomicBool,
}

impl Disk {
    fn error() -> plumb_ledger::StoreError {
        plumb_ledger::StoreError::NotReady("the disk is full".into())
    }
}

impl plumb_ledger::Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, plumb_ledger::StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<plumb_ledger::Pair>, plumb_ledger::StoreError> {
        self.store.scan(prefix, after, limit)
    }

    fn commit(
        &self,
        txn: plumb_ledger::Txn,
    ) -> Result<plumb_ledger::Committed, plumb_ledger::StoreError> {
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Self::error());
        }
        self.store.commit(txn)
    }

    fn ready(&self) -> Result<(), plumb_ledger::StoreError> {
        if self.knows.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Self::error());
        }
        Ok(())
    }
}

/// A service that counts what reaches it.
#[derive(Clone, Default)]
struct Counting(Arc<std::sync::atomic::AtomicUsize>);

impl Service<Request<Body>> for Counting {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut response = Response::new(Body::empty());
        response
            .extensions_mut()
            .insert(Detail("revision 7".into()));
        std::future::ready(Ok(response))
    }
}

/// No audit, no answer. Mutation, tried: answer with the response although the append failed. Others: leave the look at
/// `audit.ready()` out; answer a refusal whose entry was not written as if it were.
#[tokio::test]
async fn what_cannot_be_noted_is_not_answered_and_the_state_of_affairs_is_told() {
    use std::sync::atomic::Ordering::SeqCst;
    let disk = Arc::new(Disk::default());
    let (record, bearer) = api("ci", Role::Deployer);
    let temp = tempfile::tempdir().unwrap();
    let gate = gate(&temp, disk.clone(), &record);
    let inner = Counting::default();
    let mut guard = GuardLayer(Arc::new(gate)).layer(inner.clone());
    let mut call = async |method: &str| {
        let request = Request::builder()
            .uri(format!("/plumb.v1.ControlPlane/{method}"))
            .header("authorization", &bearer)
            .body(Body::empty())
            .unwrap();
        let response = guard.call(request).await.unwrap();
        let status = Status::from_header_map(response.headers());
        status.map(|status| {
            (
                Refusal::of(&status).unwrap().reason,
                status.message().to_owned(),
            )
        })
    };
    assert_eq!(call("Apply").await, None);
    assert_eq!(inner.0.load(SeqCst), 1);

    disk.full.store(true, SeqCst);
    let (reason, message) = call("Apply").await.unwrap();
    assert_eq!((reason, inner.0.load(SeqCst)), (Reason::Storage, 2));
    for part in [
        "WAS carried out (revision 7)",
        "the disk is full",
        "plumb history",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let (reason, message) = call("CreateToken").await.unwrap();
    assert_eq!((reason, inner.0.load(SeqCst)), (Reason::Storage, 2));
    assert!(message.contains("ROLE_TOO_LOW"), "{message}");
    assert_eq!(call("GetStatus").await, None, "reading goes on");

    disk.knows.store(true, SeqCst);
    let (reason, message) = call("Apply").await.unwrap();
    assert_eq!((reason, inner.0.load(SeqCst)), (Reason::Storage, 3));
    assert!(message.contains("nothing was changed"), "{message}");
}
