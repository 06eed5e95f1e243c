"""The peer of the echo figure: the same job in FastAPI."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/echo")
async def echo(payload: dict) -> dict:
    return payload


@app.post("/echo-threads")
def echo_threads(payload: dict) -> dict:
    return payload
