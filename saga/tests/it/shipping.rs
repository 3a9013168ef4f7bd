//! A shipping policy as a handler-per-message saga: it ships what is paid and packed.

use std::time::Duration;

use sagabus_core::{HandlerError, Message, Result};
use sagabus_saga::{Handles, NamedSaga, RequestFailed, RequestTimedOut, Saga, SagaCtx, Starts};
use sagabus_testkit::bus::Log;
use serde::{Deserialize, Serialize};

messages! { Shipping:
    Event OrderPaid "shop.paid",
    Event OrderPacked "shop.packed",
    Command Weigh "shop.weigh",
    Command AskForWeight "scales.weigh",
    Command Hurry "shop.hurry",
    Event TookTooLong "shop.took-too-long",
    Event Shipped "shop.shipped",
    Command Break "shop.break",
}

/// An answer: it has no key of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Weight {
    pub(crate) grams: u64,
}

impl Message for Weight {
    const TYPE: &'static str = "scales.weight";
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shipping {
    pub(crate) id: u64,
    pub(crate) paid: u32,
    pub(crate) packed: u32,
}

impl Saga for Shipping {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Shipping {
    const NAME: &'static str = "shipping";
}

impl Shipping {
    fn ship_when_ready(&self, cx: &mut SagaCtx) -> Result {
        if self.paid > 0 && self.packed > 0 {
            cx.publish(Shipped { id: self.id })?;
            cx.complete();
        }
        Ok(())
    }

    fn log(cx: &SagaCtx, line: String) -> Result {
        cx.state::<Log>()?.add(line);
        Ok(())
    }
}

/// How long a shipping waits in tests for what does come.
const LONG: Duration = Duration::from_secs(3600);

impl Starts<OrderPaid> for Shipping {
    fn start(message: &OrderPaid) -> Self {
        let id = message.id;
        Self {
            id,
            ..Self::default()
        }
    }
}

impl Handles<OrderPaid> for Shipping {
    async fn handle(&mut self, _: OrderPaid, cx: &mut SagaCtx) -> Result {
        self.paid += 1;
        cx.timeout("patience", LONG, TookTooLong { id: self.id })?;
        self.ship_when_ready(cx)
    }
}

impl Starts<OrderPacked> for Shipping {
    fn start(message: &OrderPacked) -> Self {
        let id = message.id;
        Self {
            id,
            ..Self::default()
        }
    }
}

impl Handles<OrderPacked> for Shipping {
    async fn handle(&mut self, _: OrderPacked, cx: &mut SagaCtx) -> Result {
        self.packed += 1;
        self.ship_when_ready(cx)
    }
}

impl Handles<Hurry> for Shipping {
    async fn handle(&mut self, _: Hurry, cx: &mut SagaCtx) -> Result {
        let soon = Duration::from_millis(30);
        cx.timeout("patience", soon, TookTooLong { id: self.id })
    }
}

impl Handles<TookTooLong> for Shipping {
    async fn handle(&mut self, _: TookTooLong, cx: &mut SagaCtx) -> Result {
        Self::log(cx, format!("{} took too long", self.id))?;
        cx.complete();
        Ok(())
    }
}

impl Handles<Weigh> for Shipping {
    async fn handle(&mut self, message: Weigh, cx: &mut SagaCtx) -> Result {
        // Even ones are patient, odd ones are not.
        let timeout = Duration::from_millis(if message.id.is_multiple_of(2) {
            60_000
        } else {
            30
        });
        cx.ask("weight", timeout, AskForWeight { id: message.id })
    }
}

impl Handles<Weight> for Shipping {
    async fn handle(&mut self, message: Weight, cx: &mut SagaCtx) -> Result {
        Self::log(cx, format!("{} weighs {}", self.id, message.grams))
    }
}

impl Handles<RequestFailed> for Shipping {
    async fn handle(&mut self, news: RequestFailed, cx: &mut SagaCtx) -> Result {
        let line = format!("{} {} {}", self.id, news.request, news.reason);
        Self::log(cx, line)
    }
}

impl Handles<RequestTimedOut> for Shipping {
    async fn handle(&mut self, news: RequestTimedOut, cx: &mut SagaCtx) -> Result {
        Self::log(cx, format!("{} {} timed out", self.id, news.request))
    }
}

impl Handles<Break> for Shipping {
    async fn handle(&mut self, message: Break, cx: &mut SagaCtx) -> Result {
        self.paid += 100;
        cx.publish(Shipped { id: message.id })?;
        Err(HandlerError::new("broken").terminal())
    }
}
