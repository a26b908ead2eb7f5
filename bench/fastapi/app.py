"""The receiver that edgerunner is compared with: a typical webhook receiver in
Python. It verifies the signature of the raw body, parses the body and responds;
it stores nothing."""

import hashlib
import hmac
import json
import os

from fastapi import FastAPI, Header, HTTPException, Request

SECRET = os.environb[b"GITHUB_WEBHOOK_SECRET"]

app = FastAPI()


@app.post("/webhooks/github", status_code=202)
async def webhook(
    request: Request,
    x_github_event: str = Header(),
    x_github_delivery: str = Header(),
    x_hub_signature_256: str = Header(),
):
    body = await request.body()
    expected = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, x_hub_signature_256):
        raise HTTPException(401, "the signature does not match")
    if x_github_event != "workflow_job":
        return {"outcome": "ignored"}
    event = json.loads(body)
    job = event["workflow_job"]
    return {
        "outcome": "accepted",
        "delivery": x_github_delivery,
        "action": event["action"],
        "repository": event["repository"]["full_name"],
        "job": job["id"],
        "labels": job["labels"],
    }
