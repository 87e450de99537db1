"""Checks of the tenants' shops."""

import functools
from collections.abc import Mapping, Sequence

import msgspec

from stages.health.finding import Finding, each_of
from stages.sync.errors import ShopAway, ShopError
from stages.sync.rest import WOOCOMMERCE, Shop, WordPress

PATIENCE = 10.0  # seconds for a call
# By which of a shop's logins it is asked: what any key of WooCommerce's may see, and any user of WordPress.
ASKED = {"key": f"{WOOCOMMERCE}/data/currencies/current", "user": "wp/v2/users/me"}


class ShopsCheck(msgspec.Struct, frozen=True):
    """Whether each tenant's shop answers to the logins that the settings have; of the first 50."""

    shops: Mapping[str, Shop]

    async def __call__(self) -> Sequence[Finding]:
        async with WordPress(PATIENCE) as wordpress:
            look = functools.partial(_of_shop, wordpress)
            return await each_of("shops", "shops", list(self.shops.values()), look)


async def _of_shop(wordpress: WordPress, shop: Shop) -> Finding:
    name = f"shops.{shop.tenant}"
    logins = [login for login in ASKED if getattr(shop, login)]
    if "key" not in logins:
        return Finding(name, "failed", "it has no key of WooCommerce's", f"set key and secret in {_setting(shop)}")
    try:
        for login in logins:
            await wordpress.get(shop, ASKED[login], {}, msgspec.Raw)
    except ShopAway as error:
        return Finding(name, "warning", str(error), "see the network, and whether the shop is up")
    except ShopError as error:
        return Finding(name, "failed", str(error), f"see {_setting(shop)}")
    return Finding(name, "ok", f"{shop.url} answers to our {' and '.join(logins)}")


def _setting(shop: Shop) -> str:
    return f"the setting sync.shops.{shop.tenant}"
