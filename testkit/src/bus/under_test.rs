//! What the suite runs on: a store, and a broker where the database alone is not the bus.

use std::fmt;

use sagabus_core::HostBuilder;

use crate::service::say;
use crate::store::StoreUnderTest;

type Equip = Box<dyn Fn(HostBuilder) -> HostBuilder + Send + Sync>;
/// A behaviour's name, and why it makes no sense here.
type Exception = (&'static str, &'static str);

/// A fresh store, and what its hosts talk by.
pub struct BusUnderTest {
    pub(super) store: StoreUnderTest,
    over: Option<(&'static str, Equip)>,
    declared: Option<Equip>,
    except: Vec<Exception>,
}

impl From<StoreUnderTest> for BusUnderTest {
    fn from(store: StoreUnderTest) -> Self {
        Self {
            store,
            over: None,
            declared: None,
            except: Vec::new(),
        }
    }
}

impl BusUnderTest {
    /// Lets hosts talk over a broker: `equip` gives each of them its transport.
    #[must_use]
    pub fn over(
        mut self,
        broker: &'static str,
        equip: impl Fn(HostBuilder) -> HostBuilder + Send + Sync + 'static,
    ) -> Self {
        self.over = Some((broker, Box::new(equip)));
        self
    }

    /// Declares something more of every host.
    #[must_use]
    pub fn declaring(
        mut self,
        declare: impl Fn(HostBuilder) -> HostBuilder + Send + Sync + 'static,
    ) -> Self {
        self.declared = Some(Box::new(declare));
        self
    }

    /// Names the behaviours that make no sense over this broker, each with the reason.
    #[must_use]
    pub fn except(mut self, except: &[Exception]) -> Self {
        self.except.extend(except);
        self
    }

    /// Says that a behaviour is left out, and why, also where the test harness keeps the output of
    /// passing tests to itself.
    pub(super) fn leaves_out(&self, behaviour: &str) -> bool {
        for (name, _) in &self.except {
            let is_known = super::BEHAVIOURS.iter().any(|(_, known)| known == name);
            assert!(is_known, "no behaviour is called {name}");
        }
        let found = self.except.iter().find(|(name, _)| *name == behaviour);
        if let Some((_, reason)) = found {
            let on = self.over.as_ref().map_or("here", |(broker, _)| broker);
            say(&format!("{on}: {behaviour} is left out: {reason}"));
        }
        found.is_some()
    }

    pub(super) fn equip(&self, builder: HostBuilder) -> HostBuilder {
        let over = self.over.as_ref().map(|(_, equip)| equip);
        let all = over.into_iter().chain(&self.declared);
        all.fold(builder, |builder, equip| equip(builder))
    }

    pub(super) fn has_broker(&self) -> bool {
        self.over.is_some()
    }
}

impl fmt::Debug for BusUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusUnderTest")
            .field("over", &self.over.as_ref().map(|(broker, _)| broker))
            .finish_non_exhaustive()
    }
}
