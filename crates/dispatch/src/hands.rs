//! Orders by hand on their way: the control plane's end, the agent's end, and the fence between them.
//!
//! They travel as assignments do and never with one: a number of their own that only grows, the whole of it each time,
//! obeyed and acknowledged once they are on the agent's disk. Sans-IO; the fleet and the agent's session call it.
//!
//! Invariants: an agent never goes back a number, and never takes another content under the same; at most one is in
//! flight to a machine, and one being written there.

use std::sync::Arc;

use plumb_model::{Hash, OrderNumber, Orders};

use crate::fence::Identity;
use crate::machine::RETRY_STORE_MS;
use crate::protocol::ToAgent;
use crate::view::HandsView;

/// Orders with the bytes that they are stored and sent as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenOrders {
    /// What they say.
    pub orders: Orders,
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Their hash.
    pub hash: Hash,
}

impl From<Orders> for WrittenOrders {
    fn from(orders: Orders) -> Self {
        let bytes = orders.bytes();
        Self {
            hash: Hash::of(&bytes),
            orders,
            bytes,
        }
    }
}

/// Which orders an agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldOrders {
    /// Their number; 0 is none.
    pub number: OrderNumber,
    /// The hash of their bytes; none together with 0.
    pub hash: Option<Hash>,
}

impl From<&WrittenOrders> for HeldOrders {
    fn from(written: &WrittenOrders) -> Self {
        Self {
            number: written.orders.number,
            hash: Some(written.hash),
        }
    }
}

/// What becomes of orders that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// They are new: to be written.
    Take,
    /// They are what is held.
    Same,
}

/// Whether an agent may take orders.
///
/// # Errors
/// Why not, for people.
pub fn fence_orders(
    identity: &Identity,
    held: HeldOrders,
    offered: &WrittenOrders,
) -> Result<Offered, String> {
    let orders = &offered.orders;
    if identity
        .lineage
        .as_ref()
        .is_some_and(|lineage| *lineage != orders.lineage)
    {
        return Err(format!(
            "the orders by hand are of lineage {}, but this agent obeys another",
            orders.lineage
        ));
    }
    if orders.workspace != identity.workspace || orders.machine != identity.machine {
        return Err(format!(
            "the orders by hand are for machine {} of workspace {}",
            orders.machine, orders.workspace
        ));
    }
    let number = orders.number;
    if number < held.number {
        return Err(format!(
            "the orders by hand have number {number}, but {} is held",
            held.number
        ));
    }
    match (number == held.number, held.hash == Some(offered.hash)) {
        (false, _) => Ok(Offered::Take),
        (true, true) => Ok(Offered::Same),
        (true, false) => Err(format!(
            "orders by hand of number {number} are held with other content"
        )),
    }
}

/// The control plane's end: what a machine is to hold of them, and what it holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineHands {
    pub written: Option<Arc<WrittenOrders>>,
    /// What its agent holds; none of one that takes none, or that was never heard.
    pub held: Option<HeldOrders>,
    /// Its agent was heard, so that one which holds nothing takes none.
    pub heard: bool,
    /// What was sent on this session and is not answered, and when.
    pub in_flight: Option<(OrderNumber, u64)>,
    /// What was not taken: its number, why, and when.
    pub refused: Option<(OrderNumber, String, u64)>,
}

impl MachineHands {
    /// A new session: nothing is in flight on it, and what was refused may be tried again.
    pub fn greeted(&mut self, held: Option<HeldOrders>) {
        self.held = held;
        self.heard = true;
        self.in_flight = None;
        self.refused = None;
    }

    /// What to send now, if anything; it is in flight from then on.
    pub fn next(&mut self, now_ms: u64) -> Option<ToAgent> {
        let written = self.written.as_ref()?;
        let number = written.orders.number;
        let refused = self.refused.as_ref().is_some_and(|(refused, _, at)| {
            *refused >= number && now_ms.saturating_sub(*at) < RETRY_STORE_MS
        });
        if self.in_flight.is_some() || refused || self.held?.number >= number {
            return None;
        }
        self.in_flight = Some((number, now_ms));
        Some(ToAgent::Hands {
            bytes: written.bytes.clone(),
        })
    }

    /// The agent has answered.
    pub fn answered(&mut self, held: HeldOrders, refused: Option<String>, now_ms: u64) {
        self.in_flight.take_if(|(number, _)| *number <= held.number);
        match refused {
            Some(why) => self.refused = Some((held.number, why, now_ms)),
            None if self.held.is_none_or(|before| before.number <= held.number) => {
                self.held = Some(held);
                self.refused = None;
            }
            None => {}
        }
    }

    /// For people; none if nothing was ever ordered.
    pub fn view(&self) -> Option<HandsView> {
        let orders = &self.written.as_ref()?.orders;
        Some(HandsView {
            number: orders.number,
            delivered: self.is_delivered(),
            trouble: self.trouble(),
            orders: orders.hands.clone(),
        })
    }

    /// Whether the agent holds what it is to hold.
    pub fn is_delivered(&self) -> bool {
        match (&self.written, self.held) {
            (None, _) => true,
            (Some(written), Some(held)) => held == HeldOrders::from(&**written),
            (Some(_), None) => false,
        }
    }

    /// What keeps the machine from holding them, if anything but its absence does.
    pub fn trouble(&self) -> Option<String> {
        let written = self.written.as_ref()?;
        let number = written.orders.number;
        let held = self.held;
        if self.heard && held.is_none() {
            return Some(
                "its agent is of a version that takes no orders by hand; upgrade it".to_owned(),
            );
        }
        // What was refused before is no news of what is ordered now.
        match &self.refused {
            Some((refused, why, _)) if *refused >= number => {
                return Some(format!("refused orders by hand: {why}"));
            }
            _ => {}
        }
        match held {
            Some(held) if held.number > number => Some(format!(
                "obeys orders by hand of number {}, but the control plane's records end at {number}; the next `plumb stop`, `start`, `restart` or `hold` on it replaces them",
                held.number
            )),
            Some(held) if held.number == number && held.hash != Some(written.hash) => {
                Some(format!(
                    "obeys other orders by hand of number {number} than the control plane recorded; the next `plumb stop`, `start`, `restart` or `hold` on it replaces them"
                ))
            }
            _ => None,
        }
    }
}

/// The agent's end.
#[derive(Debug, Default)]
pub(crate) struct AgentHands {
    pub held: HeldOrders,
    writing: Option<Arc<WrittenOrders>>,
    queued: Option<Arc<WrittenOrders>>,
}

/// What an offer comes to.
pub(crate) enum Offer {
    /// Write these.
    Write(Arc<WrittenOrders>),
    /// Say that they are held.
    Say(HeldOrders),
    /// Say why they are not taken.
    Refuse(OrderNumber, String),
    /// Nothing yet: another is being written.
    Wait,
}

impl AgentHands {
    fn newest(&self) -> HeldOrders {
        let newest = self.queued.as_ref().or(self.writing.as_ref());
        newest.map_or(self.held, |written| HeldOrders::from(&**written))
    }

    /// Orders have come.
    pub fn offered(&mut self, identity: &Identity, bytes: &[u8]) -> Offer {
        let orders = match Orders::parse(bytes) {
            Ok(orders) => orders,
            // Which ones they were nobody can say.
            Err(error) => return Offer::Refuse(OrderNumber(u64::MAX), error.to_string()),
        };
        let written = WrittenOrders {
            hash: Hash::of(bytes),
            bytes: bytes.to_vec(),
            orders,
        };
        match fence_orders(identity, self.newest(), &written) {
            Err(why) => Offer::Refuse(written.orders.number, why),
            Ok(Offered::Same) if self.writing.is_some() => Offer::Wait,
            Ok(Offered::Same) => Offer::Say(self.held),
            Ok(Offered::Take) => {
                let written = Arc::new(written);
                if self.writing.is_some() {
                    self.queued = Some(written);
                    return Offer::Wait;
                }
                self.writing = Some(written.clone());
                Offer::Write(written)
            }
        }
    }

    /// The writing has ended, well or not: what to say, and what to write next.
    pub fn written(&mut self, well: bool) -> (Option<HeldOrders>, Option<Arc<WrittenOrders>>) {
        let Some(written) = self.writing.take() else {
            return (None, None);
        };
        let answer = HeldOrders::from(&*written);
        if well {
            self.held = answer;
        }
        self.writing = self.queued.take();
        (Some(answer), self.writing.clone())
    }
}

#[cfg(test)]
mod tests {
    use plumb_model::hands::{FORMAT, Hands};
    use plumb_model::{Lineage, MachineName, WorkspaceName};

    use super::*;

    fn identity() -> Identity {
        Identity {
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new("m").unwrap(),
            lineage: Some(Lineage::from_random([1; 16])),
        }
    }

    fn orders(number: u64, lineage: u8, machine: &str, stops: bool) -> WrittenOrders {
        let mut hands = Hands::default();
        if stops {
            let stopped = plumb_model::hands::Stopped {
                by: "anna".into(),
                since: plumb_model::Timestamp::UNIX_EPOCH,
            };
            let owner = plumb_model::OwnerName::new("hello").unwrap();
            hands.stopped.insert(owner, stopped);
        }
        WrittenOrders::from(Orders {
            format: FORMAT,
            lineage: Lineage::from_random([lineage; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new(machine).unwrap(),
            number: OrderNumber(number),
            hands,
        })
    }

    /// Mutation: leave any of the four checks of `fence_orders` out.
    #[test]
    fn an_agent_obeys_its_own_orders_of_its_own_history_and_never_goes_back() {
        let held = HeldOrders::from(&orders(4, 1, "m", false));
        let fence = |offered: &WrittenOrders| fence_orders(&identity(), held, offered);
        assert_eq!(fence(&orders(5, 1, "m", true)), Ok(Offered::Take));
        assert_eq!(fence(&orders(4, 1, "m", false)), Ok(Offered::Same));
        for (offered, why) in [
            (orders(3, 1, "m", false), "but 4 is held"),
            (orders(4, 1, "m", true), "with other content"),
            (orders(5, 2, "m", true), "obeys another"),
            (orders(5, 1, "n", true), "are for machine n"),
        ] {
            let refused = fence(&offered).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    /// Mutation: tell of what was refused whatever is ordered by now.
    #[test]
    fn what_was_refused_before_is_no_trouble_of_what_is_ordered_now() {
        let mut hands = MachineHands {
            written: Some(Arc::new(orders(1, 1, "m", true))),
            ..MachineHands::default()
        };
        hands.greeted(Some(HeldOrders::default()));
        let refused = HeldOrders {
            number: OrderNumber(1),
            hash: None,
        };
        hands.answered(refused, Some("no space left".to_owned()), 0);
        assert!(hands.trouble().unwrap().contains("no space left"));
        hands.written = Some(Arc::new(orders(2, 1, "m", false)));
        assert_eq!(hands.trouble(), None);
    }

    #[test]
    fn what_comes_while_one_is_written_waits_its_turn_and_only_what_is_written_is_held() {
        let mut hands = AgentHands::default();
        let id = identity();
        let (one, two) = (orders(1, 1, "m", true), orders(2, 1, "m", false));
        assert!(matches!(hands.offered(&id, &one.bytes), Offer::Write(_)));
        assert!(matches!(hands.offered(&id, &one.bytes), Offer::Wait));
        assert!(matches!(hands.offered(&id, &two.bytes), Offer::Wait));
        assert_eq!(hands.held, HeldOrders::default());
        let (said, next) = hands.written(true);
        assert_eq!(said, Some(HeldOrders::from(&one)));
        assert_eq!(next.as_deref(), Some(&two));
        let (_, next) = hands.written(false);
        assert!(next.is_none());
        assert_eq!(hands.held, HeldOrders::from(&one), "a failed write");
        assert!(matches!(hands.offered(&id, &two.bytes), Offer::Write(_)));
    }

    #[test]
    fn one_is_in_flight_and_what_was_not_stored_is_offered_again_later() {
        let mut hands = MachineHands {
            written: Some(Arc::new(orders(1, 1, "m", true))),
            ..MachineHands::default()
        };
        assert!(hands.next(0).is_none(), "an agent that takes none");
        hands.greeted(Some(HeldOrders::default()));
        assert!(hands.next(0).is_some());
        assert!(hands.next(0).is_none());
        let answer = HeldOrders::from(&orders(1, 1, "m", true));
        hands.answered(answer, Some("no space".into()), 0);
        assert!(hands.next(RETRY_STORE_MS - 1).is_none());
        assert!(hands.trouble().unwrap().contains("no space"));
        assert!(hands.next(RETRY_STORE_MS).is_some());
        hands.answered(answer, None, RETRY_STORE_MS);
        assert!(hands.is_delivered() && hands.next(u64::MAX).is_none());
    }
}
