"""What can be set: one frozen tree, each option written once.

An option is a field of its section: name, type and bounds, default, a line of description, the
flag and the platform's variable that set it too, and how to print it if it is secret. Environment
variables, what `agentws check` prints and `config.example.toml` all follow from that (`options`).
"""

from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentws.config.values import (
    Bytes,
    ConnectionString,
    Count,
    Endpoint,
    EventLoop,
    HttpUrl,
    IfSessionBusy,
    Limit,
    LogFormat,
    LogLevel,
    OnDisconnect,
    OriginPattern,
    Port,
    Ratio,
    Seconds,
    Secrets,
    SessionId,
    SomeBytes,
    SomeSeconds,
    StoreAuth,
    StorePrefix,
    StoreUrl,
    default_log_format,
    without_credentials,
)


def _stars(secret: object) -> str:
    return "***" if secret else ""


def _option(
    default: object,
    description: str,
    *,
    flag: str = "",
    platform: str = "",
    redact: Callable[[Any], str] | None = None,
    has_effect: bool = True,
) -> Any:
    names = {"flag": flag, "platform": platform, "redact": redact, "has_effect": has_effect}
    # Without its repr, a secret stays out of logs and tracebacks that show the settings.
    shown: dict[str, Any] = {"repr": redact is None, "json_schema_extra": names}
    if callable(default):
        return Field(default_factory=default, description=description, **shown)
    return Field(default, description=description, **shown)


class Section(BaseModel):
    """One table of the configuration file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


class ServerSettings(Section):
    """The listening socket, the end of the process, the log."""

    host: str = _option(
        "0.0.0.0", "Address to listen on; empty, * or :: for IPv4 and IPv6.", flag="--host"
    )
    port: Port = _option(
        8088, "TCP port to listen on; 0 takes any free one.", flag="--port", platform="PORT"
    )
    shutdown_grace: Seconds = _option(
        25.0,
        "Seconds that running invocations get to finish after SIGTERM.",
        platform="AGENTSERVER_GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS",
    )
    access_log: bool = _option(True, "Whether to log every HTTP request.")
    invocation_log: bool = _option(True, "Whether to log the end of every invocation.")
    event_loop: EventLoop = _option(
        "auto", "Event loop: uvloop, asyncio, or auto for uvloop where it is installed."
    )
    trust_forwarded: bool = _option(
        False, "Whether the last address of X-Forwarded-For is the peer's in logs; a proxy sets it."
    )
    log_level: LogLevel = _option(
        "info", "Least level to log: debug, info, warning, error or critical."
    )
    log_format: LogFormat = _option(
        default_log_format,
        "Form of log lines: json or text; when unset, json, but text on a terminal.",
    )


class HandlerSettings(Section):
    """The agent's code."""

    target: str = _option(
        "",
        "The agent, as package.module:attribute or path/module.py:attribute; empty for echo.",
        flag="--handler",
    )


class AgentSettings(Section):
    """What the agent is called, and the ids that its platform gave it."""

    name: str = _option("", "Name of the agent.", platform="FOUNDRY_AGENT_NAME")
    version: str = _option("", "Version of the agent.", platform="FOUNDRY_AGENT_VERSION")
    id: str = _option("", "Id of the agent.")
    session_id: SessionId = _option(
        "",
        "Session id of messages and requests that name none.",
        platform="FOUNDRY_AGENT_SESSION_ID",
    )
    project_id: str = _option(
        "", "Id of the agent's project.", platform="FOUNDRY_PROJECT_ARM_ID", has_effect=False
    )


class WebSocketSettings(Section):
    """Sockets, framed and raw."""

    heartbeat: Seconds = _option(
        30.0, "Seconds between WebSocket pings; 0 for none.", platform="WS_KEEPALIVE_INTERVAL"
    )
    app_ping_interval: Seconds = _option(
        30.0, "Seconds without a message until a framed socket gets a ping message; 0 for none."
    )
    max_connection_age: Seconds = _option(
        0.0,
        "Age in seconds, give or take 10 %, at which a socket is closed after notice; 0 for never.",
    )
    send_timeout: SomeSeconds = _option(10.0, "Seconds that one send may take.")
    max_message_size: Bytes = _option(4 * 1024**2, "Bytes in the largest message accepted.")
    max_frame_size: SomeBytes = _option(
        512 * 1024,
        "Bytes of a message above which a framed socket sends it in fragments; 0 for never.",
    )
    compression: bool = _option(False, "Whether to offer compression, at a cost in memory.")
    max_connections: Count = _option(20_000, "Most sockets open at once.")
    max_invocations_per_connection: Count = _option(64, "Most invocations running for one socket.")


class HttpSettings(Section):
    """HTTP and Server-Sent Events."""

    max_body_size: Bytes = _option(4 * 1024**2, "Bytes in the largest request body accepted.")
    keepalive_timeout: Seconds = _option(
        300.0, "Seconds that an idle connection is kept; longer than gateways in front keep it."
    )
    sse_keepalive_interval: Seconds = _option(
        15.0,
        "Seconds of silence until an event stream gets a comment line; 0 for none.",
        platform="SSE_KEEPALIVE_INTERVAL",
    )
    cors_origins: tuple[OriginPattern, ...] = _option(
        (), "Origins whose pages may call, as in auth.allowed_origins; both hold for either."
    )


class InvocationsSettings(Section):
    """The life of an invocation and of its record."""

    max_running: Count = _option(10_000, "Most invocations running at once.")
    retention: Seconds = _option(600.0, "Seconds that an ended invocation can still be read.")
    max_retained: Count = _option(100_000, "Most ended invocations kept at once.")
    replay_bytes: Bytes = _option(1024**2, "Bytes of each stream kept for clients that resume it.")
    on_disconnect: OnDisconnect = _option(
        "cancel", "What becomes of an invocation whose client is gone: cancel or continue."
    )
    disconnect_grace: Seconds = _option(
        60.0, "Seconds that a client has to come back before its invocation is cancelled."
    )
    cancel_grace: Seconds = _option(5.0, "Seconds that a cancelled handler gets to clean up.")
    timeout: Seconds = _option(0.0, "Seconds that an invocation may take; 0 for no limit.")
    if_session_busy: IfSessionBusy = _option(
        "parallel", "What to do where a session has a running one: parallel, reject or interrupt."
    )
    max_pending_inputs: Count = _option(
        16, "Most inputs that may wait until the handler of an invocation reads them."
    )
    input_timeout: Seconds = _option(
        3600.0, "Seconds for which a question to the client is open; 0 for ever."
    )
    max_running_per_owner: Limit = _option(
        0, "Most invocations running at once for one user, on each replica; 0 for no limit."
    )


class StoreSettings(Section):
    """Where invocations are kept."""

    url: StoreUrl = _option(
        "memory://",
        "memory://, or redis://HOST or rediss://HOST, shared by several replicas.",
        redact=without_credentials,
    )
    lease: SomeSeconds = _option(15.0, "Seconds until a silent replica's invocations are lost.")
    prefix: StorePrefix = _option(
        "agentws", "What keys and channels begin with; replicas of one service have the same."
    )
    auth: StoreAuth = _option(
        "password", "How Redis knows us: password, of the URL; or entra, by a managed identity."
    )


class AuthSettings(Section):
    """Who may call."""

    api_keys: Secrets = _option(
        (),
        "Keys, or file:PATH with one a line; with none, and no jwt_issuer, the door is open.",
        redact=_stars,
    )
    jwt_issuer: str = _option("", "Issuer of tokens; needs jwt_audience and jwks_url.")
    jwt_audience: str = _option("", "Audience that tokens are made out to.")
    jwks_url: HttpUrl = _option(
        "", "URL of the keys that tokens are signed with.", redact=without_credentials
    )
    query_parameter: str = _option(
        "", "Query parameter in which browsers may send key or token on a handshake."
    )
    allowed_origins: tuple[OriginPattern, ...] = _option(
        (),
        "Origins whose pages may call, besides the same one, on any transport, and read answers.",
    )

    @property
    def is_on(self) -> bool:
        """Whether anybody has to prove who they are."""
        return bool(self.api_keys or self.jwks_url)


class TelemetrySettings(Section):
    """Where traces and metrics go."""

    connection_string: ConnectionString = _option(
        "",
        "Connection string of Application Insights.",
        platform="APPLICATIONINSIGHTS_CONNECTION_STRING",
        redact=_stars,
    )
    otlp_endpoint: Endpoint = _option(
        "",
        "Base URL of an OpenTelemetry collector.",
        platform="OTEL_EXPORTER_OTLP_ENDPOINT",
        redact=without_credentials,
    )
    sampling_ratio: Ratio = _option(1.0, "Share of traces that are kept, 0 to 1.")
    prometheus: bool = _option(False, "Whether to serve metrics at /metrics, for Prometheus.")


class ConsoleSettings(Section):
    """The page at /console/."""

    enabled: bool = _option(False, "Whether to serve the console at /console/.")


class Settings(BaseSettings):
    """The whole configuration. Made in code, it holds its arguments and defaults, nothing else.

    Sizes are bytes, durations seconds; an empty string or tuple stands for none.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    server: ServerSettings = Field(default_factory=ServerSettings)
    handler: HandlerSettings = Field(default_factory=HandlerSettings)
    agent: AgentSettings = Field(default_factory=AgentSettings)
    websocket: WebSocketSettings = Field(default_factory=WebSocketSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    invocations: InvocationsSettings = Field(default_factory=InvocationsSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is given
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the process's environment unread; `config.load` brings its own sources."""
        return (init_settings,)

    # Not in AuthSettings, because the three may come from different sources.
    @model_validator(mode="after")
    def _jwt_is_whole(self) -> Self:
        parts = ("jwt_issuer", "jwt_audience", "jwks_url")
        missing = [f"auth.{part}" for part in parts if not getattr(self.auth, part)]
        if 0 < len(missing) < len(parts):
            raise ValueError(f"{' and '.join(missing)} should be set, as JWT needs all three")
        return self

    @model_validator(mode="after")
    def _console_can_be_entered(self) -> Self:
        if self.console.enabled and self.auth.is_on and not self.auth.query_parameter:
            raise ValueError(
                "auth.query_parameter should be set, as with console.enabled the page's key or "
                "token can be sent on a handshake in no other way"
            )
        return self
