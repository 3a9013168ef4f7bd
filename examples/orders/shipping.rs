//! The endpoint `shipping`: hands parcels to the carrier.

use sagabus::EndpointBuilder;
use sagabus::prelude::*;

use crate::console::{Console, Fact};
use crate::messages::{OrderShipped, ShipOrder};
use crate::tables::Tables;

/// Puts the handler on its endpoint.
pub(crate) fn endpoint(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint.handle(ship_order)
}

/// Books a parcel: row, event and that the command was handled commit together.
async fn ship_order(
    command: ShipOrder,
    mut tables: Tables,
    console: State<Console>,
) -> Result<OrderShipped> {
    let order_id = command.order_id;
    tables.add_parcel(order_id).await?;
    console.say(Fact::Shipped, order_id, || {
        "parcel handed to the carrier".to_owned()
    });
    Ok(OrderShipped { order_id })
}
