"""What the sync stages are made of."""

from collections.abc import Mapping

import msgspec

from stages.sync.rest import Shop, WordPress
from stages.sync.store import ShopStore


class Syncing(msgspec.Struct, frozen=True, kw_only=True):
    """The tenants' shops, who asks them, and where what they have is kept. `region` is that of phone numbers
    without a country code; `full_every` the seconds from one full pull to the next; `proof_status` that of
    an order whose payment proof came in by chat, where it is to get one;
    `keep_orders` the seconds after its last change that an order is kept."""

    shops: Mapping[str, Shop]
    wordpress: WordPress
    store: ShopStore
    region: str
    full_every: float
    proof_status: str
    keep_orders: float
