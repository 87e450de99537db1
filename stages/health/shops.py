"""Checks of the tenants' shops."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from stages.health.finding import Finding
from stages.sync.errors import ShopAway, ShopError
from stages.sync.rest import WOOCOMMERCE, Shop, WordPress

MOST = 50  # shops
AT_ONCE = 10
PATIENCE = 10.0  # seconds for a call
# By which of a shop's logins it is asked: what any key of WooCommerce's may see, and any user of WordPress.
ASKED = {"key": f"{WOOCOMMERCE}/data/currencies/current", "user": "wp/v2/users/me"}


class ShopsCheck(msgspec.Struct, frozen=True):
    """Whether each tenant's shop answers to the logins that the settings have; of the first 50."""

    shops: Mapping[str, Shop]

    async def __call__(self) -> Sequence[Finding]:
        looked_at = list(self.shops.values())[:MOST]
        slots = asyncio.Semaphore(AT_ONCE)
        async with WordPress(PATIENCE) as wordpress:
            found = await asyncio.gather(*(_of_shop(wordpress, slots, shop) for shop in looked_at))
        more = "" if len(looked_at) == len(self.shops) else f"; only {MOST} of {len(self.shops)} are looked at"
        return [Finding("shops", "ok", f"shops to ask: {len(looked_at)}{more}"), *found]


async def _of_shop(wordpress: WordPress, slots: asyncio.Semaphore, shop: Shop) -> Finding:
    name = f"shops.{shop.tenant}"
    logins = [login for login in ASKED if getattr(shop, login)]
    if "key" not in logins:
        return Finding(name, "failed", "it has no key of WooCommerce's", f"set key and secret in {_setting(shop)}")
    try:
        async with slots:
            for login in logins:
                await wordpress.get(shop, ASKED[login], {}, msgspec.Raw)
    except ShopAway as error:
        return Finding(name, "warning", str(error), "see the network, and whether the shop is up")
    except ShopError as error:
        return Finding(name, "failed", str(error), f"see {_setting(shop)}")
    return Finding(name, "ok", f"{shop.url} answers to our {' and '.join(logins)}")


def _setting(shop: Shop) -> str:
    return f"the setting sync.shops.{shop.tenant}"
