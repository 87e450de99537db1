"""The real parts of the sync stages, made of the settings."""

from config import Settings
from pipeline import RiachoError
from stages.store import Database
from stages.sync.parts import Syncing
from stages.sync.rest import Shop, WordPress, usable
from stages.sync.store import ShopStore

DAY = 86_400.0  # seconds


class ShopUnusable(RiachoError):
    """Where a tenant's shop is, is said in a way that cannot be used."""


def syncing_of(settings: Settings, database: Database) -> Syncing:
    """The parts for these settings on a database; `wordpress` is opened by whoever works the stages."""
    shops = {
        tenant: Shop(
            tenant=tenant,
            url=shop.url,
            key=shop.key.reveal(),
            secret=shop.secret.reveal(),
            user=shop.user,
            password=shop.password.reveal(),
        )
        for tenant, shop in settings.sync.shops.items()
    }
    for tenant, shop in shops.items():
        if why := usable(shop.url):
            raise ShopUnusable(f"the setting sync.shops.{tenant}.url is no good: {why}")
    return Syncing(
        shops=shops,
        wordpress=WordPress(settings.sync.timeout),
        store=ShopStore(database),
        region=settings.notification.region,
        full_every=settings.sync.full_every,
        proof_status=settings.sync.proof_status,
        keep_orders=settings.sync.orders * DAY,
    )
