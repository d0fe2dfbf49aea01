//! The CAs of a control plane, and how one takes the place of another without a gap.
//!
//! Flow of a rotation: **steady** (one CA) → **spreading** (a new one is made; everybody is told of it over the trust that
//! there is; the old one goes on issuing) → **issuing** (the new one issues; the old one vouches for it, so that who knows
//! only the old one still follows) → **steady** (the old one is dropped, and its key removed).
//!
//! Guarantees: each step is one durable write of `DATA/identity/rotation.json`, made after everything that it names is on
//! the disk and before anything is done by it, so that a control plane that dies at any point goes on from there. What is
//! trusted never shrinks before the last step. It never decides when a step is due: that is [`due`], a pure function over
//! who depends on what.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use plumb_model::{Lineage, Timestamp};
use plumb_wire::token::CaDigest;
use serde::{Deserialize, Serialize};

use crate::identity::{
    Authority, CaKeyId, FIRST_CA, IdentityError, ServerChain, read_bytes, write_private,
};

const STATE_FILE: &str = "rotation.json";

/// The newest format of the file that this version reads, and the one that it writes.
const FORMAT: u32 = 1;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There is one CA.
    Steady,
    /// The next one is trusted and told of; the old one issues.
    Spreading,
    /// The next one issues; the old one is trusted still.
    Issuing,
}

impl Phase {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Spreading => "spreading",
            Self::Issuing => "issuing",
        }
    }
}

/// What is on the disk of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    format: u32,
    phase: Phase,
    /// The number of the older CA, or of the only one.
    number: u32,
    /// When the phase began.
    since: Timestamp,
    /// The API tokens whose holders have been told of the newer CA, by workspace and name.
    #[serde(default)]
    told: BTreeSet<String>,
}

/// The CAs that count now. Never changed: a step makes another.
#[derive(Debug)]
pub struct Cas {
    state: State,
    old: Arc<Authority>,
    new: Option<Arc<Authority>>,
    /// The old one's word for the new one, DER.
    vouched: Option<Vec<u8>>,
}

impl Cas {
    /// How far the rotation is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.state.since
    }

    /// The one that issues.
    #[must_use]
    pub fn issuing(&self) -> &Arc<Authority> {
        match (self.state.phase, &self.new) {
            (Phase::Issuing, Some(new)) => new,
            _ => &self.old,
        }
    }

    /// All that are trusted, the oldest first.
    pub fn trusted(&self) -> impl Iterator<Item = &Arc<Authority>> {
        [Some(&self.old), self.new.as_ref()].into_iter().flatten()
    }

    /// The one that is to be left, while there is one that takes its place.
    #[must_use]
    pub fn leaving(&self) -> Option<&Arc<Authority>> {
        self.new.as_ref().map(|_| &self.old)
    }

    /// The one that takes the other's place.
    #[must_use]
    pub fn coming(&self) -> Option<&Arc<Authority>> {
        self.new.as_ref()
    }

    /// Whether a certificate with this issuer counts.
    #[must_use]
    pub fn trusts(&self, issuer: CaKeyId) -> bool {
        self.trusted().any(|ca| ca.key_id() == issuer)
    }

    /// What everybody is to trust, PEM.
    #[must_use]
    pub fn trust_pem(&self) -> String {
        self.trusted().map(|ca| ca.certificate_pem()).collect()
    }

    /// What everybody is to trust, DER.
    #[must_use]
    pub fn trust_der(&self) -> Vec<Vec<u8>> {
        self.trusted()
            .map(|ca| ca.certificate_der().to_vec())
            .collect()
    }

    /// Whether the holder of a token has been told of the newer CA.
    #[must_use]
    pub fn has_told(&self, token: &str) -> bool {
        self.state.told.contains(token)
    }

    /// Whether the holder of a certificate has to renew it to go on with the rotation: to learn of the newer CA, or to get
    /// a certificate of it.
    #[must_use]
    pub fn wants_renewal(&self, issuer: CaKeyId, trusts: &[CaDigest]) -> bool {
        let Some(new) = &self.new else {
            return false;
        };
        match self.state.phase {
            Phase::Steady => false,
            Phase::Spreading => !trusts.contains(&new.digest()),
            Phase::Issuing => issuer != new.key_id() || !trusts.contains(&new.digest()),
        }
    }

    /// The server's certificate under these CAs, with all by which others can follow to it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn serve_as(&self, listen: IpAddr, now: Timestamp) -> Result<ServerChain, IdentityError> {
        let mut beside = Vec::new();
        if self.state.phase == Phase::Issuing {
            beside.extend(self.vouched.clone());
            beside.push(self.old.certificate_der().to_vec());
        }
        self.issuing().serve_as(listen, &beside, now)
    }
}

/// Why a step of a rotation is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// One is under way.
    #[error(
        "a rotation of the CA is under way ({}); `plumb ca status` shows who it waits for, and `plumb ca rotate --finish` ends it",
        .0.as_str()
    )]
    UnderWay(Phase),
    /// None is under way.
    #[error("no rotation of the CA is under way; begin one with `plumb ca rotate`")]
    NoneUnderWay,
    /// Files and keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The CAs of a control plane, shared by all that issue or check certificates.
pub struct Authorities {
    folder: PathBuf,
    lineage: Lineage,
    cas: RwLock<Arc<Cas>>,
    /// One step at a time.
    turn: std::sync::Mutex<()>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("cas", &self.now_in_force())
            .finish_non_exhaustive()
    }
}

impl Authorities {
    /// Opens the CAs in `DATA/identity`, wherever a rotation may have been left; makes the first where there is none.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn open(folder: &Path, lineage: &Lineage, now: Timestamp) -> Result<Self, IdentityError> {
        let path = folder.join(STATE_FILE);
        let damaged = |why: String| IdentityError::Damaged {
            path: path.clone(),
            why,
        };
        let state = match read_bytes(&path)? {
            None => State {
                format: FORMAT,
                phase: Phase::Steady,
                number: FIRST_CA,
                since: now,
                told: BTreeSet::new(),
            },
            Some(bytes) => {
                let state: State =
                    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
                if state.format > FORMAT {
                    let found = state.format;
                    return Err(damaged(format!(
                        "it was written by a newer plumb (format {found}, this one reads up to {FORMAT})"
                    )));
                }
                state
            }
        };
        let cas = load(folder, lineage, state, now)?;
        // What a finished rotation had no time to remove.
        for number in FIRST_CA..cas.old.number() {
            Authority::remove(folder, number)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            lineage: lineage.clone(),
            cas: RwLock::new(Arc::new(cas)),
            turn: std::sync::Mutex::new(()),
        })
    }

    /// The CAs that count now.
    #[must_use]
    pub fn now_in_force(&self) -> Arc<Cas> {
        self.cas
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes the next CA, and has everybody told of it. Blocks.
    ///
    /// # Errors
    /// See [`RotationError`].
    pub fn begin(&self, now: Timestamp) -> Result<Arc<Cas>, RotationError> {
        self.step(now, |state| match state.phase {
            Phase::Steady => Ok(State {
                phase: Phase::Spreading,
                told: BTreeSet::new(),
                ..state
            }),
            phase => Err(RotationError::UnderWay(phase)),
        })
    }

    /// Has the next CA issue from now on. Blocks.
    ///
    /// # Errors
    /// See [`RotationError`].
    pub fn issue(&self, now: Timestamp) -> Result<Arc<Cas>, RotationError> {
        self.step(now, |state| match state.phase {
            Phase::Spreading => Ok(State {
                phase: Phase::Issuing,
                ..state
            }),
            Phase::Steady => Err(RotationError::NoneUnderWay),
            Phase::Issuing => Err(RotationError::UnderWay(Phase::Issuing)),
        })
    }

    /// Drops the old CA, whoever still depends on it, and removes its key. Blocks.
    ///
    /// # Errors
    /// See [`RotationError`].
    pub fn finish(&self, now: Timestamp) -> Result<Arc<Cas>, RotationError> {
        let before = self.now_in_force().old.number();
        let cas = self.step(now, |state| match state.phase {
            Phase::Steady => Err(RotationError::NoneUnderWay),
            Phase::Spreading | Phase::Issuing => Ok(State {
                phase: Phase::Steady,
                number: state.number + 1,
                told: BTreeSet::new(),
                ..state
            }),
        })?;
        Authority::remove(&self.folder, before)?;
        Ok(cas)
    }

    /// Notes that the holder of a token knows of the newer CA. Blocks.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn told(&self, token: &str) -> Result<(), IdentityError> {
        let cas = self.now_in_force();
        if cas.state.phase == Phase::Steady || cas.has_told(token) {
            return Ok(());
        }
        let since = cas.state.since;
        let done = self.step(since, |mut state| {
            if state.phase == Phase::Steady {
                return Err(RotationError::NoneUnderWay);
            }
            state.told.insert(token.to_owned());
            Ok(state)
        });
        match done {
            Ok(_) | Err(RotationError::NoneUnderWay | RotationError::UnderWay(_)) => Ok(()),
            Err(RotationError::Identity(error)) => Err(error),
        }
    }

    fn step(
        &self,
        now: Timestamp,
        next: impl FnOnce(State) -> Result<State, RotationError>,
    ) -> Result<Arc<Cas>, RotationError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now_in_force();
        let mut state = next(before.state.clone())?;
        if state.phase != before.state.phase {
            state.since = now;
        }
        // The keys first: what the file names is there.
        let cas = Arc::new(load(&self.folder, &self.lineage, state, now)?);
        let bytes = serde_json::to_vec_pretty(&cas.state)
            .map_err(|e| IdentityError::Make(e.to_string()))?;
        write_private(&self.folder, STATE_FILE, &bytes)?;
        *self.cas.write().unwrap_or_else(PoisonError::into_inner) = cas.clone();
        Ok(cas)
    }
}

fn load(
    folder: &Path,
    lineage: &Lineage,
    state: State,
    now: Timestamp,
) -> Result<Cas, IdentityError> {
    let old = Authority::open_numbered(folder, lineage, state.number, now)?;
    let new = match state.phase {
        Phase::Steady => None,
        Phase::Spreading | Phase::Issuing => Some(Authority::open_numbered(
            folder,
            lineage,
            state.number + 1,
            now,
        )?),
    };
    let vouched = match &new {
        Some(new) => Some(old.vouch_for(new, lineage, now)?),
        None => None,
    };
    Ok(Cas {
        state,
        old: Arc::new(old),
        new: new.map(Arc::new),
        vouched,
    })
}

/// Who would lose the control plane if the old CA were dropped now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependents {
    /// Machines that have not proven to know the newer CA.
    pub unaware: Vec<String>,
    /// Machines whose certificate is of the older CA.
    pub on_old: Vec<String>,
    /// API tokens whose holders have not been told of the newer CA.
    pub tokens: Vec<String>,
    /// Join tokens that name the older CA, and can still be used.
    pub joins: Vec<String>,
}

impl Dependents {
    /// Whether nobody is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            unaware,
            on_old,
            tokens,
            joins,
        } = self;
        unaware.is_empty() && on_old.is_empty() && tokens.is_empty() && joins.is_empty()
    }
}

/// A step of a rotation that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Everybody knows the newer CA: it may issue.
    Issue,
    /// Nobody depends on the older CA: it may go.
    Finish,
}

/// Which step is due, given who depends on what.
#[must_use]
pub fn due(phase: Phase, left: &Dependents) -> Option<Due> {
    match phase {
        Phase::Steady => None,
        // Tokens do not hold it up: the older CA vouches for the newer one to whoever knows only that.
        Phase::Spreading => left.unaware.is_empty().then_some(Due::Issue),
        Phase::Issuing => left.is_empty().then_some(Due::Finish),
    }
}

/// A digest as it is stored.
#[must_use]
pub fn parse_digest(text: &str) -> Option<CaDigest> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(CaDigest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, peer, requested_key};
    use rcgen::{CertificateParams, KeyPair};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn lineage() -> Lineage {
        Lineage::from_random([7; 16])
    }

    fn open(folder: &Path) -> Authorities {
        Authorities::open(folder, &lineage(), now()).unwrap()
    }

    /// Whether a client that knows only `root` takes the server under these CAs for the control plane.
    fn reaches(cas: &Cas, root: &[u8]) -> bool {
        let chain = cas.serve_as("127.0.0.1".parse().unwrap(), now()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let certificates: Vec<_> = chain
            .chain_der
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let at = std::time::Duration::from_secs(u64::try_from(now().as_second()).unwrap());
        verifier
            .verify_server_cert(
                &certificates[0],
                &certificates[1..],
                &ServerName::try_from(plumb_wire::SERVER_NAME).unwrap(),
                &[],
                UnixTime::since_unix_epoch(at),
            )
            .is_ok()
    }

    fn issuer_of(cas: &Cas) -> CaKeyId {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let identity = Identity {
            lineage: lineage(),
            workspace: "shop".parse().unwrap(),
            machine: "web-1".parse().unwrap(),
        };
        let issued = cas
            .issuing()
            .issue(&requested_key(csr.der()).unwrap(), &identity, now())
            .unwrap();
        peer(&issued.chain_der[0]).unwrap().issuer
    }

    /// Mutation: leave `vouched` out of `serve_as`, or let the spreading phase issue by the new one.
    #[test]
    fn at_every_step_who_knows_either_ca_that_is_trusted_reaches_the_server() {
        let temp = tempfile::tempdir().unwrap();
        let cas = open(temp.path());
        let first = cas.now_in_force();
        let old = first.issuing().certificate_der().to_vec();
        assert!(reaches(&first, &old));
        assert_eq!(first.trust_der().len(), 1);

        let spreading = cas.begin(now()).unwrap();
        let new = spreading.coming().unwrap().certificate_der().to_vec();
        assert!(reaches(&spreading, &old));
        assert_eq!(issuer_of(&spreading), first.issuing().key_id());
        assert_eq!(spreading.trust_der(), [old.clone(), new.clone()]);

        let issuing = cas.issue(now()).unwrap();
        assert!(reaches(&issuing, &old) && reaches(&issuing, &new));
        assert_eq!(issuer_of(&issuing), issuing.coming().unwrap().key_id());
        assert!(issuing.trusts(first.issuing().key_id()));

        let steady = cas.finish(now()).unwrap();
        assert!(!reaches(&steady, &old) && reaches(&steady, &new));
        assert!(!steady.trusts(first.issuing().key_id()));
        assert_eq!(steady.trust_der(), [new]);
        assert!(!temp.path().join("ca.key").exists() && !temp.path().join("ca.pem").exists());
        // And it goes on from there.
        cas.begin(now()).unwrap();
        cas.issue(now()).unwrap();
        let third = cas.finish(now()).unwrap();
        assert_eq!(third.issuing().number(), 3);
    }

    /// The control plane dies after each write of each step; what it opens then is what was in force before the step or
    /// after it, and the step can be taken again. Mutation: write `rotation.json` before `load` in `step`, or draw a new
    /// key in `open_numbered` where there is one.
    #[test]
    fn a_rotation_that_is_cut_short_anywhere_goes_on_from_there() {
        let temp = tempfile::tempdir().unwrap();
        let live = temp.path().join("live");
        let cas = open(&live);
        let mut states: Vec<(Phase, Vec<Vec<u8>>)> = Vec::new();
        let mut cuts = Vec::new();
        let copy = |name: &str| {
            let to = temp.path().join(name);
            std::fs::create_dir(&to).unwrap();
            for entry in std::fs::read_dir(&live).unwrap().flatten() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
            to
        };
        let mut note = |cas: &Cas| states.push((cas.phase(), cas.trust_der()));
        note(&cas.now_in_force());
        // The key of the next one is there and nothing else, then its certificate too, and no word of it.
        Authority::open_numbered(&live, &lineage(), 2, now()).unwrap();
        let cut = copy("key");
        std::fs::remove_file(cut.join("ca-2.pem")).unwrap();
        cuts.push((0, cut));
        cuts.push((0, copy("both")));
        note(&cas.begin(now()).unwrap());
        cuts.push((1, copy("begun")));
        note(&cas.issue(now()).unwrap());
        cuts.push((2, copy("issuing")));
        // The last word is written, and the old one's files are there in whole or in part.
        let whole = copy("whole");
        note(&cas.finish(now()).unwrap());
        std::fs::copy(live.join(STATE_FILE), whole.join(STATE_FILE)).unwrap();
        let part = temp.path().join("part");
        std::fs::create_dir(&part).unwrap();
        for entry in std::fs::read_dir(&whole).unwrap().flatten() {
            std::fs::copy(entry.path(), part.join(entry.file_name())).unwrap();
        }
        std::fs::remove_file(part.join("ca.key")).unwrap();
        cuts.push((3, whole));
        cuts.push((3, part));
        for (at, folder) in cuts {
            let again = open(&folder);
            let found = again.now_in_force();
            assert_eq!(
                (found.phase(), found.trust_der()),
                states[at],
                "{}",
                folder.display()
            );
            let mut phase = found.phase();
            if phase == Phase::Steady && at == 0 {
                phase = again.begin(now()).unwrap().phase();
            }
            if phase == Phase::Spreading {
                phase = again.issue(now()).unwrap().phase();
            }
            if phase == Phase::Issuing {
                again.finish(now()).unwrap();
            }
            let end = again.now_in_force();
            assert_eq!((end.phase(), end.issuing().number()), (Phase::Steady, 2));
            assert!(!folder.join("ca.key").exists(), "{}", folder.display());
        }
    }

    #[test]
    fn a_step_is_due_only_when_nobody_is_lost_by_it() {
        let left = |unaware: &[&str], on_old: &[&str], tokens: &[&str]| Dependents {
            unaware: unaware.iter().map(ToString::to_string).collect(),
            on_old: on_old.iter().map(ToString::to_string).collect(),
            tokens: tokens.iter().map(ToString::to_string).collect(),
            joins: Vec::new(),
        };
        let check =
            |phase, left: Dependents, expected| assert_eq!(due(phase, &left), expected, "{left:?}");
        check(Phase::Steady, left(&[], &[], &[]), None);
        check(Phase::Spreading, left(&["a"], &["a"], &[]), None);
        check(
            Phase::Spreading,
            left(&[], &["a"], &["ci"]),
            Some(Due::Issue),
        );
        check(Phase::Issuing, left(&[], &["a"], &[]), None);
        check(Phase::Issuing, left(&[], &[], &["ci"]), None);
        check(Phase::Issuing, left(&[], &[], &[]), Some(Due::Finish));
    }

    #[test]
    fn steps_out_of_turn_are_refused_and_change_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let cas = open(temp.path());
        assert!(matches!(cas.issue(now()), Err(RotationError::NoneUnderWay)));
        assert!(matches!(
            cas.finish(now()),
            Err(RotationError::NoneUnderWay)
        ));
        cas.begin(now()).unwrap();
        assert!(matches!(
            cas.begin(now()),
            Err(RotationError::UnderWay(Phase::Spreading))
        ));
        cas.told("ci").unwrap();
        assert!(open(temp.path()).now_in_force().has_told("ci"));
        cas.finish(now()).unwrap();
        assert_eq!(cas.now_in_force().phase(), Phase::Steady);
    }
}
