"""JupyterLab that asks who is there, whatever a setting says: `make lab` names this class to it."""

from __future__ import annotations

import secrets

from jupyter_server.auth.identity import PasswordIdentityProvider
from traitlets import validate


class AlwaysAsks(PasswordIdentityProvider):
    """The server's own check by token or password, but an empty token without a password is none.

    An option or a configuration of the reader's may switch the token off. Then everybody who can
    reach the port, such as others who work on the same machine, could run code as the reader.
    """

    @validate("token")
    def _not_empty(self, proposal: dict) -> str:
        if proposal["value"] or self.hashed_password:
            return proposal["value"]
        self.log.warning(
            "A setting switches the token off: everybody on this machine could run code in your "
            "name. Here is a token all the same; to be asked for a password instead, see "
            "`jupyter server password`"
        )
        self.token_generated = True  # so that the server shows it
        return secrets.token_hex(24)
