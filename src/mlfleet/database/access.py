"""How to reach one Postgres database as one role."""

import dataclasses
import urllib.parse


@dataclasses.dataclass(frozen=True)
class DatabaseAccess:
    """One Postgres database and the role that may use it."""

    host: str
    port: int
    name: str
    user: str
    password: str = dataclasses.field(repr=False)

    @property
    def uri(self) -> str:
        """The SQLAlchemy address, password included; never log it."""
        user, password = (urllib.parse.quote(part, safe="") for part in (self.user, self.password))
        return f"postgresql+psycopg2://{user}:{password}@{self.host}:{self.port}/{self.name}"
