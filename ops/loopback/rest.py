"""The REST API, version 10: what discord.py needs at login and while running, kept in memory, by Discord's rules."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ops.loopback import guild, limits, members
from ops.loopback.accounts import Accounts
from ops.loopback.errors import ApiError
from ops.loopback.interactions import Interactions
from ops.loopback.messages import Files, Messages
from ops.loopback.permissions import Permission
from ops.loopback.ratelimits import RateLimits
from ops.loopback.room import Room

PREFIX = "/api/v10"
OPEN = {"/gateway", "/oauth2/authorize", "/oauth2/token"}  # without the bot's token
UPLOAD_BYTES = 64 * 2**20  # of a whole request; a single file's limit is `Messages.attachment_bytes`

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


class Fault(msgspec.Struct):
    """What goes wrong with the next requests: those of `method` whose path ends in or holds `part`, so many times."""

    method: str
    part: str
    status: int
    code: int = 0
    message: str = "made to fail"
    times: int = 1


class Rest:
    """
    The routes and what was made through them.

    Attributes
    ----------
    messages, interactions, limits, accounts
        What is behind the routes.
    commands
        Application commands by guild id, the global ones under None.
    voice_statuses
        By channel id.
    faults
        What is to go wrong.
    shards, max_concurrency
        What bots are recommended.
    """

    def __init__(self, *, token: str, rooms: Mapping[int, Room]) -> None:
        self.gateway_url = ""
        self.shards = self.max_concurrency = 1
        self.messages = Messages()
        self.interactions = Interactions(self.messages)
        self.rate_limits = RateLimits()
        self.accounts = Accounts()
        self.commands: dict[str | None, list[dict[str, Any]]] = {}
        self.voice_statuses: dict[str, str | None] = {}
        self.faults: list[Fault] = []
        self.latency_s = 0.0
        self._token = token
        self._rooms = rooms

    def application(self) -> web.Application:
        """The routes, to be mounted at `PREFIX`."""
        app = web.Application(middlewares=[self._ruled], client_max_size=UPLOAD_BYTES)
        commands = "/applications/{application}/commands"
        guild_commands = "/applications/{application}/guilds/{guild}/commands"
        webhook = "/webhooks/{application}/{token}"
        app.add_routes(
            [
                web.get("/users/@me", self._me),
                web.get("/oauth2/authorize", self.accounts.authorize),
                web.post("/oauth2/token", self._token_for_code),
                web.get("/oauth2/applications/@me", self._application),
                web.get("/applications/@me", self._application),
                web.get("/gateway", self._gateway),
                web.get("/gateway/bot", self._gateway),
                web.get(commands, self._get_commands),
                web.put(commands, self._put_commands),
                web.get(guild_commands, self._get_commands),
                web.put(guild_commands, self._put_commands),
                web.get("/channels/{channel}", self._channel),
                web.put("/channels/{channel}/voice-status", self._voice_status),
                web.post("/channels/{channel}/messages", self._create_message),
                web.get("/channels/{channel}/messages/{message}", self._get_message),
                web.patch("/channels/{channel}/messages/{message}", self._edit_message),
                web.delete("/channels/{channel}/messages/{message}", self._delete_message),
                web.get("/guilds/{guild}", self._guild),
                web.get("/guilds/{guild}/members/{user}", self._member),
                web.patch("/guilds/{guild}/members/@me", self._own_member),
                web.post("/interactions/{interaction}/{token}/callback", self._callback),
                web.post(webhook, self._follow_up),
                web.get(webhook + "/messages/{message}", self._get_answer),
                web.patch(webhook + "/messages/{message}", self._edit_answer),
                web.delete(webhook + "/messages/{message}", self._delete_answer),
            ]
        )
        return app

    def fail(self, method: str, part: str, status: int, *, code: int = 0, times: int = 1) -> None:
        """Make the next `times` requests of a method whose path holds `part` fail."""
        self.faults.append(Fault(method, part, status, code, times=times))

    # --- what holds for every route

    @web.middleware
    async def _ruled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """401 without the token, except where a route's own token speaks; faults, rate limits; Discord's JSON."""
        path = request.path.removeprefix(PREFIX)
        open_route = path.startswith(("/interactions/", "/webhooks/")) or path in OPEN
        authorization = request.headers.get("Authorization", "")
        somebody = path == "/users/@me" and self.accounts.who(authorization) is not None
        if not open_route and not somebody and authorization != f"Bot {self._token}":
            return _error(401, 0, "401: Unauthorized")
        await asyncio.sleep(self.latency_s)
        if (fault := self._fault(request.method, path)) is not None:
            return _error(fault.status, fault.code, fault.message)
        _, _, major, resource, *_ = [*path.split("/"), "", ""]
        resource = "@me" if path.endswith("/members/@me") else resource
        verdict = self.rate_limits.take(request.method, resource, major)
        if verdict.retry_after_s:
            body = {"message": "You are being rate limited.", "retry_after": verdict.retry_after_s, "global": False}
            return _json(body, status=429, headers=verdict.headers)
        response = await self._answer(request, handler, path)
        response.headers.update(verdict.headers)
        return response

    async def _answer(self, request: web.Request, handler: Handler, path: str) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            log.info("rest_refused", method=request.method, path=path, code=error.code, why=str(error))
            return _error(error.status, error.code, str(error))
        except web.HTTPNotFound:
            log.warning("rest_route_unknown", method=request.method, path=path)
            return _error(404, 0, "404: Not Found")
        except web.HTTPMethodNotAllowed:
            log.warning("rest_method_unknown", method=request.method, path=path)
            return _error(405, 0, "405: Method Not Allowed")

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.part in path:
                fault.times -= 1
                return fault
        return None

    def _demand(self, channel_id: str, *wanted: Permission) -> None:
        """The bot may do all that in this channel; raises ApiError."""
        room = self._room_of(channel_id)
        allowed = room.roles.bot_may(int(channel_id))
        if not allowed & Permission.VIEW_CHANNEL:
            raise ApiError(403, 50001, "Missing Access")
        if any(not allowed & each for each in wanted):
            raise ApiError(403, 50013, "Missing Permissions")

    def _room_of(self, channel_id: str) -> Room:
        for room in self._rooms.values():
            if any(channel["id"] == channel_id for channel in guild.channels(room)):
                return room
        raise ApiError(404, 10003, "Unknown Channel")

    # --- login

    async def _me(self, request: web.Request) -> web.Response:
        return _json(self.accounts.who(request.headers["Authorization"]) or guild.bot_user())

    async def _token_for_code(self, request: web.Request) -> web.Response:
        return _json(await self.accounts.token(request))

    async def _application(self, _: web.Request) -> web.Response:
        return _json(
            {
                "id": str(guild.APPLICATION_ID),
                "name": "Retold",
                "description": "",
                "icon": None,
                "bot_public": True,
                "bot_require_code_grant": False,
                "verify_key": "",
                "flags": 0,
                "owner": members.user(guild.OWNER_ID, "Owner"),
                "team": None,
                "rpc_origins": [],
            }
        )

    async def _gateway(self, _: web.Request) -> web.Response:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": self.max_concurrency}
        return _json({"url": self.gateway_url, "shards": self.shards, "session_start_limit": limit})

    # --- commands

    async def _get_commands(self, request: web.Request) -> web.Response:
        return _json(self.commands.get(request.match_info.get("guild"), []))

    async def _put_commands(self, request: web.Request) -> web.Response:
        where = request.match_info.get("guild")
        known = {command["name"]: command["id"] for command in self.commands.get(where, [])}
        given = await request.json()
        for command in given:
            limits.check_command(command)
        self.commands[where] = [
            {
                "type": 1,
                "description": "",
                "default_member_permissions": None,
                "version": "1",
                **command,
                "id": known.get(command["name"]) or self.new_id(),
                "application_id": request.match_info["application"],
                **({"guild_id": where} if where else {}),
            }
            for command in given
        ]
        return _json(self.commands[where])

    # --- guilds and channels

    async def _channel(self, request: web.Request) -> web.Response:
        wanted = request.match_info["channel"]
        room = self._room_of(wanted)
        return _json(next(channel for channel in guild.channels(room) if channel["id"] == wanted))

    async def _voice_status(self, request: web.Request) -> web.Response:
        channel_id = request.match_info["channel"]
        self._demand(channel_id, Permission.SET_VOICE_CHANNEL_STATUS)
        status = (await request.json()).get("status")
        if len(status or "") > limits.VOICE_STATUS_CHARACTERS:
            raise ApiError(400, 50035, "Invalid Form Body\nIn status: Must be 500 or fewer in length.")
        self.voice_statuses[channel_id] = status
        return web.Response(status=204)

    async def _guild(self, request: web.Request) -> web.Response:
        room = self._rooms.get(int(request.match_info["guild"]))
        return _json(guild.guild(room)) if room else _error(404, 10004, "Unknown Guild")

    async def _member(self, request: web.Request) -> web.Response:
        room = self._rooms.get(int(request.match_info["guild"]))
        everybody = guild.members(room) if room else []
        found = next((who for who in everybody if who["user"]["id"] == request.match_info["user"]), None)
        return _json(found) if found else _error(404, 10007, "Unknown Member")

    async def _own_member(self, request: web.Request) -> web.Response:
        room = self._rooms[int(request.match_info["guild"])]
        if not room.roles.bot_may(0) & Permission.CHANGE_NICKNAME:
            raise ApiError(403, 50013, "Missing Permissions")
        room.bot_nick = (await request.json()).get("nick") or None
        return _json(guild.bot_member(room))

    # --- messages

    async def _create_message(self, request: web.Request) -> web.Response:
        body, files = await _body(request)
        channel_id = request.match_info["channel"]
        wanted = (Permission.SEND_MESSAGES, Permission.ATTACH_FILES) if files else (Permission.SEND_MESSAGES,)
        self._demand(channel_id, *wanted)
        return _json(self.messages.create({"channel_id": channel_id}, body, files))

    async def _get_message(self, request: web.Request) -> web.Response:
        self._demand(request.match_info["channel"], Permission.READ_MESSAGE_HISTORY)
        return _json(self.messages.find(request.match_info["message"]))

    async def _edit_message(self, request: web.Request) -> web.Response:
        self._demand(request.match_info["channel"])
        return _json(self.messages.edit(request.match_info["message"], *await _body(request)))

    async def _delete_message(self, request: web.Request) -> web.Response:
        self._demand(request.match_info["channel"])
        self.messages.delete(request.match_info["message"])
        return web.Response(status=204)

    # --- interactions

    async def _callback(self, request: web.Request) -> web.Response:
        made, token = request.match_info["interaction"], request.match_info["token"]
        return _json(self.interactions.answer(made, token, *await _body(request)))

    async def _follow_up(self, request: web.Request) -> web.Response:
        return _json(self.interactions.follow_up(request.match_info["token"], *await _body(request)))

    async def _get_answer(self, request: web.Request) -> web.Response:
        return _json(self.interactions.get(request.match_info["token"], request.match_info["message"]))

    async def _edit_answer(self, request: web.Request) -> web.Response:
        where = request.match_info
        return _json(self.interactions.edit(where["token"], where["message"], *await _body(request)))

    async def _delete_answer(self, request: web.Request) -> web.Response:
        self.interactions.delete(request.match_info["token"], request.match_info["message"])
        return web.Response(status=204)

    def new_id(self) -> str:
        """A snowflake that was never used here."""
        return self.messages.new_id()


async def _body(request: web.Request) -> tuple[dict[str, Any], Files]:
    """The JSON of a request, which comes as a form when files are attached, and the files by name."""
    if not request.content_type.startswith("multipart/"):
        return dict(await request.json()), {}
    form = await request.post()
    files = {part.filename: part.file.read() for part in form.values() if isinstance(part, web.FileField)}
    return dict(json.loads(str(form.get("payload_json", "{}")))), files


def _json(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response whose Content-Type is exactly application/json, as discord.py demands."""
    body = json.dumps(data).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **(headers or {})})


def _error(status: int, code: int, message: str) -> web.Response:
    return _json({"message": message, "code": code}, status=status)
