//! The endpoint `payments`: asks the gateway for money, and keeps our own books of it.

use std::time::Duration;

use anyhow::anyhow;
use sagabus::EndpointBuilder;
use sagabus::prelude::*;

use crate::console::{Console, Fact};
use crate::gateway::{Answer, Ask, Gateway};
use crate::messages::{
    CardCharged, CardRefunded, PaymentDeclined, PaymentRefunded, PaymentTaken, RefundPayment,
    TakePayment,
};
use crate::shop::euros;
use crate::tables::Tables;

/// How long to leave a gateway alone that is down.
const GATEWAY_PAUSE: Duration = Duration::from_secs(1);

/// Puts the handlers on their endpoint.
pub(crate) fn endpoint(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint
        .handle(take_payment)
        .handle(record_charge)
        .handle(refund_payment)
        .handle(record_refund)
}

/// Charges the card. No transaction is open meanwhile, and the key is the same however often this
/// message comes, so that a card is charged once even if the process dies right after the call.
async fn take_payment(
    command: TakePayment,
    key: IdempotencyKey,
    gateway: State<Gateway>,
    console: State<Console>,
) -> Result<(Option<CardCharged>, Option<PaymentDeclined>)> {
    let TakePayment {
        order_id,
        cents,
        card,
    } = command;
    let ask = Ask::Charge {
        key: key.to_string(),
        order: order_id,
        cents,
        card,
    };
    match gateway.ask(ask).await? {
        Answer::Done { receipt } => {
            console.say(Fact::Charged, order_id, || {
                format!("card charged with {}, receipt {receipt}", euros(cents))
            });
            Ok((
                Some(CardCharged {
                    order_id,
                    cents,
                    receipt,
                }),
                None,
            ))
        }
        Answer::Declined { reason } => {
            console.say(Fact::Declined, order_id, || {
                format!("payment declined: {reason}")
            });
            Ok((None, Some(PaymentDeclined { order_id, reason })))
        }
        other => Err(try_later(other, order_id, &console)),
    }
}

/// Writes a charge into our books: that the message was handled, the row and the event commit
/// together.
async fn record_charge(event: CardCharged, mut tables: Tables) -> Result<PaymentTaken> {
    let CardCharged {
        order_id,
        cents,
        receipt,
    } = event;
    tables.add_payment(order_id, cents, &receipt).await?;
    Ok(PaymentTaken { order_id, receipt })
}

/// Gives money back that came too late.
async fn refund_payment(
    command: RefundPayment,
    key: IdempotencyKey,
    gateway: State<Gateway>,
    console: State<Console>,
) -> Result<CardRefunded> {
    let RefundPayment {
        order_id,
        cents,
        receipt,
    } = command;
    let ask = Ask::Refund {
        key: key.to_string(),
        order: order_id,
        cents,
        receipt,
    };
    match gateway.ask(ask).await? {
        Answer::Done { receipt } => {
            console.say(Fact::Refunded, order_id, || {
                format!("{} given back", euros(cents))
            });
            Ok(CardRefunded {
                order_id,
                cents,
                receipt,
            })
        }
        // Trying again cannot help: the gateway knows of no such charge.
        Answer::Declined { reason } => {
            Err(HandlerError::from(anyhow!("refund declined: {reason}")).terminal())
        }
        other => Err(try_later(other, order_id, &console)),
    }
}

/// Writes a refund into our books.
async fn record_refund(event: CardRefunded, mut tables: Tables) -> Result<PaymentRefunded> {
    tables
        .add_payment(event.order_id, -event.cents, &event.receipt)
        .await?;
    Ok(PaymentRefunded {
        order_id: event.order_id,
    })
}

/// Turns an answer that decides nothing into another try, which costs no attempt: how long the
/// gateway takes is not the message's fault.
fn try_later(answer: Answer, order_id: i64, console: &Console) -> HandlerError {
    match answer {
        Answer::Pending { wait } => {
            console.say(Fact::Waiting, order_id, || {
                "the bank takes its time".to_owned()
            });
            HandlerError::retry_after(wait, anyhow!("gateway has not decided yet"))
        }
        _ => {
            // Once per second and order: only a number of it can be read.
            console.count(Fact::Waiting);
            HandlerError::retry_after(GATEWAY_PAUSE, anyhow!("gateway is down"))
        }
    }
}
