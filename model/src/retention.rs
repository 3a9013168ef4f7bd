//! An announced event at two endpoints: the broker first, the inbox that forgets, dead letters and
//! what an operator redrives.

use stateright::{Model, Property};

use crate::check::Design;
use crate::fault::Faults;

/// Endpoints that take the event: the announcer's own, and another one of the same database.
const ENDPOINTS: usize = 2;
/// The broker redelivers nothing that is older: days of its own retention.
const HORIZON: u8 = 2;
/// How old an inbox row becomes.
const KEPT: u8 = 3;
/// Days that are looked at.
const DAYS: u8 = 4;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The inbox forgets before the broker does.
    ShortRetention,
    /// The inbox row of one endpoint counts for the other.
    InboxSharedByEndpoints,
    /// A redriven message goes back through the broker.
    RedriveThroughTheBroker,
    /// A dead letter may be redriven by two operators.
    RedrivenTwice,
    /// Who announces also applies the event, and does not say so in the inbox.
    AppliedWhereAnnounced,
    /// An announcement in doubt is given up.
    AnnouncementInDoubtIsDropped,
    /// An announcement in doubt is made again as another message.
    AnnouncedAnew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Api {
    Before,
    /// The broker's answer was lost.
    Doubt,
    Over,
}

/// What an endpoint's database knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Endpoint {
    /// Copies that wait at the broker: of the first announcement, of another one.
    queued: [u8; 2],
    /// The age of the inbox row.
    inbox: [Option<u8>; 2],
    /// A self-addressed row.
    rows: u8,
    effects: u8,
    /// Open dead letters, and how many there have been.
    dead: u8,
    given_up: u8,
    redriven: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    api: Api,
    day: u8,
    has_taken: [bool; 2],
    endpoints: [Endpoint; ENDPOINTS],
    faults: Faults,
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `announce.rs`: the broker takes the event and confirms.
    Announce,
    /// The broker takes it, the confirm is lost.
    AnnounceUnheard,
    /// The broker does not take it, and nobody knows.
    AnnounceUnmade,
    /// Made again under the same id.
    AnnounceAgain,
    /// `sagabus.commit_v1`: a delivery's unit, or `Duplicate`; then the ack.
    Deliver(usize, usize),
    /// The same, and the ack is lost: the copy stays.
    DeliverUnacked(usize, usize),
    /// `settling.rs`, `Case::dead`: given up; then the ack.
    GiveUp(usize, usize),
    /// `StoreAdmin::change`: an operator redrives the dead letter.
    Redrive(usize),
    /// `handling.rs`: the redriven row is handled.
    HandleRow(usize),
    /// Time passes, by the database's clock.
    NextDay,
    /// `sweep.rs`, `sagabus.sweep_inbox_v1`.
    Sweep(usize, usize),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    mutant: Option<Mutant>,
}

const ONE_EFFECT: &str = "I-6 an event has its effect at an endpoint at most once";
const CONVERGES: &str = "I-2 at rest an announced event is applied or a dead letter, everywhere";
const APART: &str = "I-13 no endpoint takes from another what it has to handle";

impl Design for Retention {
    const NAME: &'static str = "retention";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::ShortRetention, ONE_EFFECT),
        (Mutant::InboxSharedByEndpoints, APART),
        (Mutant::RedriveThroughTheBroker, CONVERGES),
        (Mutant::RedrivenTwice, ONE_EFFECT),
        (Mutant::AppliedWhereAnnounced, ONE_EFFECT),
        (Mutant::AnnouncementInDoubtIsDropped, CONVERGES),
        (Mutant::AnnouncedAnew, ONE_EFFECT),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }
}

impl Retention {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn take(state: &mut State, id: usize) {
        state.has_taken[id] = true;
        for endpoint in &mut state.endpoints {
            endpoint.queued[id] += 1;
        }
    }

    fn is_known(&self, state: &State, at: usize, id: usize) -> bool {
        let shares = self.is(Mutant::InboxSharedByEndpoints);
        let mut places = state.endpoints.iter().enumerate();
        places.any(|(other, endpoint)| endpoint.inbox[id].is_some() && (other == at || shares))
    }

    /// Takes one copy over; what is known is only acked.
    fn deliver(&self, state: &mut State, at: usize, id: usize, gives_up: bool) {
        let is_known = self.is_known(state, at, id);
        let endpoint = &mut state.endpoints[at];
        endpoint.queued[id] -= 1;
        if is_known {
            return;
        }
        endpoint.inbox[id] = Some(0);
        if gives_up {
            endpoint.dead += 1;
            endpoint.given_up += 1;
        } else {
            endpoint.effects += 1;
        }
    }

    fn redrive(&self, state: &mut State, at: usize) {
        let endpoint = &mut state.endpoints[at];
        endpoint.redriven += 1;
        endpoint.dead = endpoint.dead.saturating_sub(1);
        if self.is(Mutant::RedriveThroughTheBroker) {
            endpoint.queued[0] += 1;
        } else {
            endpoint.rows += 1;
        }
    }

    fn may_redrive(&self, endpoint: &Endpoint) -> bool {
        let twice = self.is(Mutant::RedrivenTwice);
        endpoint.dead > 0 || twice && endpoint.given_up > 0 && endpoint.redriven < 2
    }

    /// The broker holds nothing that is older than its horizon when a day ends.
    fn may_end_day(state: &State) -> bool {
        let is_empty = |endpoint: &Endpoint| endpoint.queued == [0, 0];
        let is_over = state.day < HORIZON || state.endpoints.iter().all(is_empty);
        state.day < DAYS && is_over && state.api == Api::Over
    }

    fn kept(&self) -> u8 {
        if self.is(Mutant::ShortRetention) {
            1
        } else {
            KEPT
        }
    }

    fn push_endpoint(&self, actions: &mut Vec<Action>, state: &State, at: usize) {
        let endpoint = &state.endpoints[at];
        for id in 0..2 {
            if endpoint.queued[id] > 0 {
                actions.push(Action::Deliver(at, id));
                if state.faults.any() {
                    actions.push(Action::DeliverUnacked(at, id));
                    actions.push(Action::GiveUp(at, id));
                }
            }
            if endpoint.inbox[id].is_some_and(|age| age >= self.kept()) {
                actions.push(Action::Sweep(at, id));
            }
        }
        if endpoint.rows > 0 {
            actions.push(Action::HandleRow(at));
        }
        if self.may_redrive(endpoint) {
            actions.push(Action::Redrive(at));
        }
    }
}

impl Model for Retention {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            api: Api::Before,
            day: 0,
            has_taken: [false; 2],
            endpoints: [Endpoint::default(); ENDPOINTS],
            faults: Faults(3),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.api {
            Api::Before => {
                actions.push(Action::Announce);
                if state.faults.any() {
                    actions.push(Action::AnnounceUnheard);
                    actions.push(Action::AnnounceUnmade);
                }
            }
            Api::Doubt => actions.push(Action::AnnounceAgain),
            Api::Over => {}
        }
        for at in 0..ENDPOINTS {
            self.push_endpoint(actions, state, at);
        }
        if Self::may_end_day(state) {
            actions.push(Action::NextDay);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let in_doubt = if self.is(Mutant::AnnouncementInDoubtIsDropped) {
            Api::Over
        } else {
            Api::Doubt
        };
        match action {
            Action::Announce => {
                Self::take(&mut state, 0);
                state.api = Api::Over;
                if self.is(Mutant::AppliedWhereAnnounced) {
                    state.endpoints[0].effects += 1;
                }
            }
            Action::AnnounceUnheard => {
                state.faults.strike();
                Self::take(&mut state, 0);
                state.api = in_doubt;
            }
            Action::AnnounceUnmade => {
                state.faults.strike();
                state.api = in_doubt;
            }
            Action::AnnounceAgain => {
                let id = usize::from(self.is(Mutant::AnnouncedAnew));
                Self::take(&mut state, id);
                state.api = Api::Over;
            }
            Action::Deliver(at, id) => self.deliver(&mut state, at, id, false),
            Action::DeliverUnacked(at, id) => {
                state.faults.strike();
                self.deliver(&mut state, at, id, false);
                state.endpoints[at].queued[id] += 1;
            }
            Action::GiveUp(at, id) => {
                state.faults.strike();
                self.deliver(&mut state, at, id, true);
            }
            Action::Redrive(at) => self.redrive(&mut state, at),
            Action::HandleRow(at) => {
                state.endpoints[at].rows -= 1;
                state.endpoints[at].effects += 1;
            }
            Action::NextDay => {
                state.day += 1;
                let inboxes = state.endpoints.iter_mut().flat_map(|one| &mut one.inbox);
                inboxes.flatten().for_each(|age| *age += 1);
            }
            Action::Sweep(at, id) => state.endpoints[at].inbox[id] = None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_EFFECT, |_, state: &State| {
                state.endpoints.iter().all(|endpoint| endpoint.effects <= 1)
            }),
            Property::always(CONVERGES, |_, state: &State| {
                let is_quiet = |one: &Endpoint| one.queued == [0, 0] && one.rows == 0;
                let is_done = |one: &Endpoint| one.effects + one.dead >= 1;
                let is_at_rest = state.api == Api::Over && state.endpoints.iter().all(is_quiet);
                !is_at_rest || state.endpoints.iter().all(is_done)
            }),
            Property::always(APART, |_, state: &State| {
                // Whoever has no copy left has answered one.
                let is_answered = |one: &Endpoint| one.effects + one.dead + one.rows >= 1;
                let is_robbed = |one: &Endpoint| {
                    state.has_taken[0]
                        && one.queued == [0, 0]
                        && one.redriven == 0
                        && !is_answered(one)
                };
                !state.endpoints.iter().any(is_robbed)
            }),
            Property::sometimes(
                "the inbox has forgotten what was handled",
                |_, state: &State| {
                    state.endpoints[0].effects == 1 && state.endpoints[0].inbox == [None, None]
                },
            ),
            Property::sometimes(
                "an event that was announced twice has one effect",
                |_, state: &State| {
                    state
                        .endpoints
                        .iter()
                        .all(|one| one.effects == 1 && one.queued[0] == 1)
                },
            ),
            Property::sometimes(
                "a dead letter is redriven when the inbox has forgotten it",
                |_, state: &State| {
                    let one = &state.endpoints[0];
                    one.rows == 1 && one.inbox == [None, None]
                },
            ),
            Property::sometimes("a redriven message has its effect", |_, state: &State| {
                state.endpoints[0].redriven == 1 && state.endpoints[0].effects == 1
            }),
        ]
    }
}
