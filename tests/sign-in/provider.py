"""An OpenID Connect provider for the tests of sign-in: Canaille, with a client and three people.

Usage: provider.py PORT CERTIFICATE KEY CLIENT_SECRET REDIRECT_URI
"""

import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend

port, certificate, key, client_secret, redirect_uri = sys.argv[1:]

app = create_app(
    {
        "SECRET_KEY": client_secret,
        "SERVER_NAME": f"localhost:{port}",
        "PREFERRED_URL_SCHEME": "https",
        "CANAILLE": {"DATABASE": "memory", "LOGGING": None},
        # Envoy's filter sends a state and a code challenge instead.
        "CANAILLE_OIDC": {"REQUIRE_NONCE": False, "TRUSTED_DOMAINS": ["localhost"]},
    }
)

with app.app_context():
    people = {}
    for name in ["reader", "operator", "outsider"]:
        person = models.User(
            user_name=name,
            formatted_name=name.title(),
            family_name=name.title(),
            emails=[f"{name}@example.com"],
            password="a-long-password",
        )
        Backend.instance.save(person)
        people[name] = person
    for group, name in [("edgerunner-read", "reader"), ("edgerunner-operate", "operator")]:
        Backend.instance.save(models.Group(display_name=group, members=[people[name]]))
    client = models.Client(
        client_id="edgerunner",
        client_name="edgerunner",
        client_uri="https://localhost",
        client_secret=client_secret,
        redirect_uris=[redirect_uri],
        token_endpoint_auth_method="client_secret_post",
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=["openid", "email", "profile", "groups"],
    )
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)

app.run(host="127.0.0.1", port=int(port), ssl_context=(certificate, key), threaded=True)
