"""From settings as they are written to a relay's part in a realm."""

from ..cluster import Cluster, ClusterConfig
from ..protocol import ConfigError
from ._sources import Given


def cluster_of(given: Given) -> Cluster | None:
    """Return the relay's part in a realm, None where it is to be alone.

    Raises:
        UsageError: a setting has no meaning, or has none without another one.
        ConfigError: what the engine takes is not installed.
    """
    settings = given.settings
    credentials = settings.cluster_credentials
    if not settings.cluster:
        for key in ("realm", "cluster_credentials", "cluster_required", "cluster_fallback"):
            if key in given.said:
                raise given.locate(ConfigError(f"{key} has no meaning without --cluster"))
        return None
    try:
        config = ClusterConfig(
            urls=settings.cluster,
            realm=settings.realm,
            credentials=None if credentials is None else given.path("cluster_credentials", credentials),
            required=settings.cluster_required,
            fallback=settings.cluster_fallback,
        )
    except ConfigError as error:
        raise given.locate(error) from None
    return Cluster.on_nats(config)
