"""A small team chat: Flask, and one WebSocket for each open page.

    gunicorn -k gevent --chdir examples/flask_app app:app

Then open http://127.0.0.1:8000 in two windows. Run one worker only, as the command above does:
the channels live in its memory (see chat.py).
"""

from __future__ import annotations

from chat import JOIN_TIMEOUT, Chat, Member, Refused, parse
from flask import Flask, Response

from faye_wsgi import WebSocket
from faye_wsgi.flask import websocket

app = Flask(__name__)
chat = Chat()


@app.get('/')
def index() -> Response:
    return app.send_static_file('index.html')


# The ping keeps proxies from cutting a quiet connection, and finds visitors who vanished;
# close_timeout is for those who are too slow even to say goodbye.
# max_length is in bytes. A page of another origin is refused by the handshake itself.
@app.route('/channels/<name>', websocket=True)
@websocket(ping=25, close_timeout=5, max_length=16 * 1024)
def channel(ws: WebSocket, name: str) -> None:
    try:
        # Who it is comes as the first message: addresses are written to access logs.
        member = Member(ws, parse(ws.receive(timeout=JOIN_TIMEOUT)))
        room = chat.join(name, member)
    except TimeoutError:
        ws.close(1008, 'No greeting')
        return
    except Refused as refusal:
        ws.close(refusal.code, str(refusal))
        return
    try:
        for message in ws:
            member.pace()
            chat.receive(room, member, message)
    finally:
        chat.leave(room, member)


@app.after_request
def only_our_own_files(response: Response) -> Response:
    """A second line of defence: even if somebody's text became HTML, it could not run."""
    response.headers['Content-Security-Policy'] = "default-src 'self'; frame-ancestors 'none'"
    response.headers['X-Content-Type-Options'] = 'nosniff'
    response.headers['Referrer-Policy'] = 'same-origin'
    return response
