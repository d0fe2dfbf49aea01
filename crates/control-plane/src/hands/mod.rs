//! Orders by hand of one workspace: works out what each machine is to be told, records it, and hands it to the fleet.
//!
//! Guarantees: one order at a time; what is answered is durable; the number of a machine's orders is above every one that
//! is recorded or that its agent is known to hold. It never touches what the blueprints say.

mod resource;
pub(crate) mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use plumb_dispatch::hands::WrittenOrders;
use plumb_ledger::{Ledger, LedgerError};
use plumb_model::hands::{FORMAT, Hands, Hold, Restart, Stopped};
use plumb_model::{
    Address, Assignment, MachineName, OrderNumber, Orders, OwnerName, ResourceKind, ResourceSpec,
    RunState, Timestamp,
};
use plumb_wire::error::{Reason, Refusal};
use tokio::sync::Mutex;

use crate::gateway::Gateway;
use crate::refuse;

/// Holds that have ended are told of for so long, with what they had covered.
const TOLD_AFTER: Duration = Duration::from_secs(24 * 3600);

/// So many resources of one machine may be held at once: more is no help by hand any more, and all of it is sent each time.
const MAX_HOLDS: usize = 200;

/// What each machine is assigned.
type Assignments = BTreeMap<MachineName, Arc<Assignment>>;

/// All that is ordered by hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    /// By machine.
    pub machines: BTreeMap<MachineName, Arc<WrittenOrders>>,
    /// What is stopped on whichever machine it comes to.
    pub everywhere: BTreeMap<OwnerName, Stopped>,
}

impl Recorded {
    /// Reads it. Blocks.
    pub fn load(ledger: &Ledger) -> Result<Self, LedgerError> {
        let orders = ledger.orders()?.into_iter();
        let machines = orders.map(|orders| {
            let machine = orders.machine.clone();
            (machine, Arc::new(WrittenOrders::from(orders)))
        });
        Ok(Self {
            machines: machines.collect(),
            everywhere: ledger.stopped()?,
        })
    }

    fn hands(&self, machine: &MachineName) -> Hands {
        let written = self.machines.get(machine);
        written.map_or_else(Hands::default, |w| w.orders.hands.clone())
    }

    fn number(&self, machine: &MachineName) -> OrderNumber {
        let written = self.machines.get(machine);
        written.map_or(OrderNumber(0), |w| w.orders.number)
    }
}

/// An order, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub machine: MachineName,
    /// None: nothing had to be changed there.
    pub number: Option<OrderNumber>,
    pub online: bool,
    pub processes: Vec<Address>,
}

/// What is to be done about an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Stop,
    Start,
    Restart,
}

/// A machine as far as an order is about it.
#[derive(Debug, Clone, Default)]
struct Ground {
    online: bool,
    /// The highest number of orders that its agent is known to hold.
    held: OrderNumber,
    /// The processes that are meant, and whether they are recorded as running.
    processes: BTreeMap<Address, RunState>,
}

/// Gives orders by hand.
pub(crate) struct Desk {
    ledger: Ledger,
    now: fn() -> Timestamp,
    gateway: Gateway,
    recorded: RwLock<Recorded>,
    turn: Mutex<()>,
}

impl Desk {
    /// Starts with what the ledger holds; the fleet knows it already.
    pub fn new(
        ledger: Ledger,
        now: fn() -> Timestamp,
        gateway: Gateway,
        recorded: Recorded,
    ) -> Self {
        Self {
            ledger,
            now,
            gateway,
            recorded: RwLock::new(recorded),
            turn: Mutex::default(),
        }
    }

    /// What is ordered.
    pub fn recorded(&self) -> Recorded {
        self.recorded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops, starts or starts again an app, everywhere or on one machine.
    pub async fn order(
        self: &Arc<Self>,
        verb: Verb,
        owner: OwnerName,
        machine: Option<MachineName>,
        by: String,
    ) -> Result<Vec<Sent>, Refusal> {
        let this = self.clone();
        // In a task of its own: an order that is recorded is delivered, whoever goes away meanwhile.
        let ordered = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            this.order_in_turn(verb, owner, machine, by).await
        });
        ordered.await.map_err(|e| refuse::panicked(&e))?
    }

    async fn order_in_turn(
        &self,
        verb: Verb,
        owner: OwnerName,
        machine: Option<MachineName>,
        by: String,
    ) -> Result<Vec<Sent>, Refusal> {
        let mut ground = self.ground(&owner, machine.as_ref()).await?;
        let before = self.recorded();
        let stopped_on = |name: &MachineName| {
            let written = before.machines.get(name)?;
            written.orders.hands.stopped.get(&owner).cloned()
        };
        if verb == Verb::Start && machine.is_none() {
            // A machine that the app has left since may still be told to stop it.
            for name in before.machines.keys() {
                if stopped_on(name).is_some() && !ground.contains_key(name) {
                    let held = before.number(name);
                    let left = Ground {
                        held,
                        ..Ground::default()
                    };
                    ground.insert(name.clone(), left);
                }
            }
        }
        refuse_standing(verb, &owner, &ground, &stopped_on)?;
        let at = (self.now)();
        refuse_held(&ground, &before, at)?;
        let mut next = before.clone();
        let mut changed = Vec::new();
        let mut sent = Vec::new();
        for (name, ground) in &ground {
            let number = OrderNumber(before.number(name).max(ground.held).0 + 1);
            // One whose agent obeys what is recorded nowhere is told even what would change nothing.
            let behind = ground.held > before.number(name);
            let mut hands = before.hands(name);
            let was = hands.clone();
            let by = by.clone();
            match verb {
                Verb::Stop => {
                    let stopped = Stopped { by, since: at };
                    hands.stopped.entry(owner.clone()).or_insert(stopped);
                }
                Verb::Start | Verb::Restart => {
                    hands.stopped.remove(&owner);
                    let restart = Restart {
                        id: number,
                        by,
                        at,
                        only_start: verb == Verb::Start,
                    };
                    if !ground.processes.is_empty() {
                        hands.restarts.insert(owner.clone(), restart);
                    }
                }
            }
            let moves = hands != was || behind;
            if moves {
                changed.push(self.orders(name, number, hands, at));
            }
            sent.push(Sent {
                machine: name.clone(),
                number: moves.then_some(number),
                online: ground.online,
                processes: ground.processes.keys().cloned().collect(),
            });
        }
        if machine.is_none() {
            match verb {
                Verb::Stop => {
                    let stopped = Stopped { by, since: at };
                    next.everywhere.entry(owner).or_insert(stopped);
                }
                Verb::Start => {
                    next.everywhere.remove(&owner);
                }
                Verb::Restart => {}
            }
        }
        self.store(&before, next, changed).await?;
        Ok(sent)
    }

    /// Holds a resource, replacing a hold of it that there is.
    pub async fn hold(
        self: &Arc<Self>,
        resource: String,
        length: Duration,
        reason: String,
        by: String,
    ) -> Result<(Address, Hold, bool), Refusal> {
        let this = self.clone();
        let held = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            let since = (this.now)();
            let until = since.checked_add(length).unwrap_or(since);
            let address = this.resource(resource).await?;
            let hold = Hold {
                by,
                since,
                until,
                reason,
            };
            let online = this.set_hold(&address, Some(hold.clone())).await?;
            Ok((address, hold, online))
        });
        held.await.map_err(|e| refuse::panicked(&e))?
    }

    /// Ends a hold before its time: the hold as it was.
    pub async fn release(
        self: &Arc<Self>,
        resource: String,
    ) -> Result<(Address, Hold, bool), Refusal> {
        let this = self.clone();
        let released = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            let now = (this.now)();
            let held: Vec<(Address, Hold)> = this.held(now).collect();
            let known = held.iter().map(|(address, _)| address);
            let address = resource::find(&resource, known).map_err(|hint| {
                let message = match held.as_slice() {
                    [] => "nothing is held".to_owned(),
                    _ => format!("{resource} is not held{hint}; `plumb hold list` shows what is"),
                };
                Refusal::new(Reason::NotFound, message)
            })?;
            let was = held.into_iter().find(|(held, _)| *held == address);
            let hold = was
                .map(|(_, hold)| hold)
                .ok_or_else(|| Refusal::new(Reason::NotFound, format!("{address} is not held")))?;
            let online = this.set_hold(&address, None).await?;
            Ok((address, hold, online))
        });
        released.await.map_err(|e| refuse::panicked(&e))?
    }

    fn held(&self, now: Timestamp) -> impl Iterator<Item = (Address, Hold)> + use<> {
        let machines = self.recorded().machines.into_values();
        machines.flat_map(move |written| {
            let holds = written.orders.hands.holds.clone().into_iter();
            holds.filter(move |(_, hold)| hold.holds(now))
        })
    }

    /// Whether the machine is online.
    async fn set_hold(&self, address: &Address, hold: Option<Hold>) -> Result<bool, Refusal> {
        let name = address.machine.clone();
        let ground = self
            .gateway
            .look(move |fleet| Ground {
                online: fleet.session_of(&name).is_some(),
                held: fleet.held_orders(&name),
                ..Ground::default()
            })
            .await
            .ok_or_else(closing)?;
        let before = self.recorded();
        let at = (self.now)();
        let number = OrderNumber(before.number(&address.machine).max(ground.held).0 + 1);
        let mut hands = before.hands(&address.machine);
        match hold {
            Some(hold) => {
                if hands.holds.len() >= MAX_HOLDS && !hands.holds.contains_key(address) {
                    // Those that have ended are told of no more.
                    hands.holds.retain(|_, hold| hold.holds(at));
                }
                if hands.holds.len() >= MAX_HOLDS && !hands.holds.contains_key(address) {
                    return Err(Refusal::new(
                        Reason::TooMany,
                        format!(
                            "{MAX_HOLDS} resources of {} are held already; release some with `plumb hold --release`",
                            address.machine
                        ),
                    ));
                }
                hands.holds.insert(address.clone(), hold);
            }
            // It ends now, and is told of for a while, as one that has run out.
            None => {
                if let Some(hold) = hands.holds.get_mut(address) {
                    hold.until = at;
                }
            }
        }
        let orders = self.orders(&address.machine, number, hands, at);
        self.store(&before, before.clone(), vec![orders]).await?;
        Ok(ground.online)
    }

    fn orders(
        &self,
        machine: &MachineName,
        number: OrderNumber,
        mut hands: Hands,
        at: Timestamp,
    ) -> Orders {
        let told_since = at.checked_sub(TOLD_AFTER).unwrap_or(at);
        hands.holds.retain(|_, hold| hold.until > told_since);
        Orders {
            format: FORMAT,
            lineage: self.ledger.lineage().clone(),
            workspace: self.ledger.workspace().clone(),
            machine: machine.clone(),
            number,
            hands,
        }
    }

    /// Records, and tells the fleet.
    async fn store(
        &self,
        before: &Recorded,
        mut next: Recorded,
        changed: Vec<Orders>,
    ) -> Result<(), Refusal> {
        let everywhere = (before.everywhere != next.everywhere).then(|| next.everywhere.clone());
        let ledger = self.ledger.clone();
        let written = refuse::blocking(move || {
            if let Some(everywhere) = everywhere {
                ledger
                    .store_stopped(&everywhere)
                    .map_err(|e| refuse::ledger(&e))?;
            }
            ledger
                .store_orders(&changed)
                .map_err(|e| refuse::ledger(&e))?;
            let written = changed.into_iter().map(|orders| {
                let machine = orders.machine.clone();
                (machine, Arc::new(WrittenOrders::from(orders)))
            });
            Ok(written.collect::<BTreeMap<_, _>>())
        })
        .await?;
        next.machines.extend(written.clone());
        *self
            .recorded
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
        if !written.is_empty() {
            self.gateway.hands(written).await;
        }
        Ok(())
    }

    /// The machines that an order about an app goes to.
    async fn ground(
        &self,
        owner: &OwnerName,
        only: Option<&MachineName>,
    ) -> Result<BTreeMap<MachineName, Ground>, Refusal> {
        let (owner, only) = (owner.clone(), only.cloned());
        let looked = self.gateway.look(move |fleet| {
            let mut ground: BTreeMap<MachineName, Ground> = BTreeMap::new();
            let mut owners = BTreeSet::new();
            let mut machines = BTreeSet::new();
            for (name, assignment) in fleet.assignments() {
                machines.insert(name.clone());
                for resource in assignment.resources() {
                    if resource.address.owner != owner {
                        if !owners.contains(&resource.address.owner) {
                            owners.insert(resource.address.owner.clone());
                        }
                        continue;
                    }
                    let ground = ground.entry(name.clone()).or_default();
                    if let ResourceSpec::Process(spec) = &resource.spec {
                        ground
                            .processes
                            .insert(resource.address.clone(), spec.state);
                    }
                }
            }
            for (name, ground) in &mut ground {
                ground.online = fleet.session_of(name).is_some();
                ground.held = fleet.held_orders(name);
            }
            pick(&owner, only.as_ref(), ground, &owners, &machines)
        });
        looked.await.ok_or_else(closing)?
    }

    /// The address that is meant.
    async fn resource(&self, text: String) -> Result<Address, Refusal> {
        let looked = self.gateway.look(move |fleet| {
            let assignments = fleet.assignments();
            let addresses = assignments
                .flat_map(|(_, assignment)| assignment.entries().map(plumb_model::Entry::address));
            resource::find(&text, addresses).map_err(|hint| {
                let message = format!(
                    "no resource {text} is recorded{hint}; `plumb status --verbose` lists them all"
                );
                Refusal::new(Reason::NotFound, message)
            })
        });
        looked.await.ok_or_else(closing)?
    }

    /// Follows an apply, before the fleet hears of it: what is stopped everywhere is stopped on machines that an app is new
    /// to, what is renamed stays stopped, and what has left the records is forgotten.
    pub async fn follow(&self, before: &Assignments, after: &Assignments) -> Result<(), Refusal> {
        let recorded = self.recorded();
        let any = |written: &Arc<WrittenOrders>| !written.orders.hands.stopped.is_empty();
        if recorded.everywhere.is_empty() && !recorded.machines.values().any(any) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let recorded = self.recorded();
        let at = (self.now)();
        let mut next = recorded.clone();
        let renamed = renamed(after);
        for (owner, old) in &renamed {
            if let Some(stopped) = recorded.everywhere.get(old) {
                next.everywhere.insert((*owner).clone(), stopped.clone());
            }
        }
        let owners: BTreeSet<&OwnerName> = [before, after]
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(|assignment| assignment.entries())
            .map(|entry| &entry.address().owner)
            .collect();
        next.everywhere.retain(|owner, _| owners.contains(owner));
        let names: BTreeSet<&MachineName> = after.keys().chain(recorded.machines.keys()).collect();
        let mut changed = Vec::new();
        for name in names {
            let was = recorded.hands(name);
            let mut hands = was.clone();
            let (had, has) = (processes(before.get(name)), processes(after.get(name)));
            for owner in has.difference(&had) {
                let old = renamed.get(*owner);
                let stopped = old.and_then(|old| was.stopped.get(old)).or_else(|| {
                    next.everywhere.get(*owner).filter(|_| {
                        // Under its old name it runs here, since somebody started it on this machine.
                        old.is_none_or(|old| !had.contains(old))
                    })
                });
                if let Some(stopped) = stopped {
                    hands.stopped.insert((*owner).clone(), stopped.clone());
                }
            }
            hands.stopped.retain(|owner, _| owners.contains(owner));
            hands.restarts.retain(|owner, _| owners.contains(owner));
            if hands != was {
                let number = OrderNumber(recorded.number(name).0 + 1);
                changed.push(self.orders(name, number, hands, at));
            }
        }
        // One that holds more than is recorded, after an older copy was restored, must not be numbered below that.
        let held = self.held_numbers(&changed).await?;
        for orders in &mut changed {
            let held = held.get(&orders.machine).copied().unwrap_or_default();
            orders.number = orders.number.max(OrderNumber(held.0 + 1));
        }
        self.store(&recorded, next, changed).await
    }

    async fn held_numbers(
        &self,
        changed: &[Orders],
    ) -> Result<BTreeMap<MachineName, OrderNumber>, Refusal> {
        let names: Vec<MachineName> = changed.iter().map(|o| o.machine.clone()).collect();
        let looked = self.gateway.look(move |fleet| {
            let held = names.into_iter().map(|name| {
                let held = fleet.held_orders(&name);
                (name, held)
            });
            held.collect()
        });
        looked.await.ok_or_else(closing)
    }
}

/// The owners that have processes on a machine.
fn processes(assignment: Option<&Arc<Assignment>>) -> BTreeSet<&OwnerName> {
    let resources = assignment.into_iter().flat_map(|a| a.resources());
    let processes = resources.filter(|r| r.address.kind == ResourceKind::Process);
    processes.map(|r| &r.address.owner).collect()
}

/// Owner → the name that it had.
fn renamed(after: &Assignments) -> BTreeMap<&OwnerName, &OwnerName> {
    let resources = after.values().flat_map(|a| a.resources());
    resources
        .filter_map(|resource| {
            let was = &resource.was.as_ref()?.owner;
            (*was != resource.address.owner).then_some((&resource.address.owner, was))
        })
        .collect()
}

pub(crate) fn closing() -> Refusal {
    Refusal::new(
        Reason::Closing,
        "the control plane is going down; try again",
    )
}

/// Says what is wrong with an order that goes nowhere.
fn pick(
    owner: &OwnerName,
    only: Option<&MachineName>,
    mut ground: BTreeMap<MachineName, Ground>,
    owners: &BTreeSet<OwnerName>,
    machines: &BTreeSet<MachineName>,
) -> Result<BTreeMap<MachineName, Ground>, Refusal> {
    let not_found = |message| Err(Refusal::new(Reason::NotFound, message));
    if ground.is_empty() {
        let near = plumb_blueprint::nearest(owner.as_str(), owners.iter().map(OwnerName::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        return not_found(format!(
            "nothing named {owner} is recorded on any machine{hint}; `plumb status` shows what is"
        ));
    }
    if let Some(only) = only {
        if !machines.contains(only) {
            let names = machines.iter().map(MachineName::as_str);
            let near = plumb_blueprint::nearest(only.as_str(), names);
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return not_found(format!(
                "no machine {only} is recorded{hint}; `plumb machine list` shows which are"
            ));
        }
        if !ground.contains_key(only) {
            const NAMED: usize = 8;
            let on: Vec<&str> = ground.keys().take(NAMED).map(MachineName::as_str).collect();
            let more = match ground.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return not_found(format!(
                "{owner} is not on machine {only}; it is on {}{more}",
                on.join(", ")
            ));
        }
        ground.retain(|name, _| name == only);
    }
    if ground.values().all(|ground| ground.processes.is_empty()) {
        return Err(Refusal::new(
            Reason::WrongState,
            format!(
                "{owner} has no processes that could be stopped or started; `plumb reconcile --app {owner}` checks what it has"
            ),
        ));
    }
    ground.retain(|_, ground| !ground.processes.is_empty());
    Ok(ground)
}

/// What is to stand still is started by nothing but the word that undoes that.
/// Nothing is stopped or started behind the back of whoever holds it.
fn refuse_held(
    ground: &BTreeMap<MachineName, Ground>,
    recorded: &Recorded,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut processes = ground.iter().flat_map(|(name, ground)| {
        let written = recorded.machines.get(name);
        let addresses = ground.processes.keys();
        addresses.filter_map(move |at| Some((at, written?.orders.hands.holds.get(at)?)))
    });
    let Some((address, hold)) = processes.find(|(_, hold)| hold.holds(now)) else {
        return Ok(());
    };
    Err(Refusal::new(
        Reason::WrongState,
        format!(
            "{address} is held until {} by {} ({}); release it first with `plumb hold --release {address}`, or name another machine with --machine",
            hold.until, hold.by, hold.reason
        ),
    ))
}

fn refuse_standing(
    verb: Verb,
    owner: &OwnerName,
    ground: &BTreeMap<MachineName, Ground>,
    stopped_on: &impl Fn(&MachineName) -> Option<Stopped>,
) -> Result<(), Refusal> {
    let wrong = |message| Err(Refusal::new(Reason::WrongState, message));
    let mut states = ground.values().flat_map(|ground| ground.processes.values());
    if verb != Verb::Stop && states.all(|state| *state == RunState::Stopped) {
        return wrong(format!(
            "the blueprints say that {owner} is stopped: take `state: stopped` out of it and apply"
        ));
    }
    if verb == Verb::Restart
        && let Some((name, stopped)) = ground
            .keys()
            .find_map(|name| Some((name, stopped_on(name)?)))
    {
        return wrong(format!(
            "{owner} was stopped on {name} by {} at {}; `plumb start {owner}` starts it",
            stopped.by, stopped.since
        ));
    }
    Ok(())
}
