//! The endpoint `shipping`: hands parcels to the carrier.

use sagabus::EndpointBuilder;
use sagabus::prelude::*;

use crate::console::{Console, Fact};
use crate::messages::{OrderShipped, ShipOrder};

/// Puts the handler on its endpoint.
pub(crate) fn endpoint(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint.handle(ship_order)
}

/// Books a parcel. No unique constraint here either: a second parcel would show in the ledger.
async fn ship_order(
    command: ShipOrder,
    mut tx: Tx<Sqlite>,
    console: State<Console>,
) -> Result<OrderShipped> {
    let order_id = command.order_id;
    sqlx::query("insert into shipments (order_id) values (?)")
        .bind(order_id)
        .execute(tx.conn().await?)
        .await?;
    console.say(Fact::Shipped, order_id, || {
        "parcel handed to the carrier".to_owned()
    });
    Ok(OrderShipped { order_id })
}
