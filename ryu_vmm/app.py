"""The Ryu application: a shim that connects the runtime to OpenFlow, REST and time. Logic lives in nva.py."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

from eventlet import tpool
from ryu import cfg
from ryu.app import wsgi as web
from ryu.app.wsgi import ControllerBase, WSGIApplication
from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import HANDSHAKE_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3

from . import config, inventory, misspelt
from .audit import AuditTrail, Result, started_with
from .errors import InvalidInput, VmmError
from .listener import Listener, Tls
from .rest import make_app
from .rest.authentication import Access, Keyring
from .rest.guard import Guard
from .runtime import Runtime
from .southbound import Switchboard
from .store import MemoryStore, SqliteStore

LOG = logging.getLogger("ryu_vmm")
CONF = cfg.CONF
CONF.register_opts(config.OPTIONS, config.GROUP)
# Neither interface asks who is there, so neither is offered to the network unless the user says so.
CONF.set_default("wsapi_host", "127.0.0.1")
CONF.set_default("ofp_listen_host", "127.0.0.1")


class _Rest(ControllerBase):
    """Hands every request under our paths to the REST application."""

    application: Any = None

    def __call__(self, req: Any) -> Any:
        return type(self).application


class VmmApp(app_manager.RyuApp):
    """The Network Virtualization Authority as ryu-manager loads it (``ryu-manager ryu_vmm``)."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]
    _CONTEXTS = {"wsgi": WSGIApplication}

    def __init__(self, *args: Any, wsgi: WSGIApplication, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            misspelt.check_files(CONF, config.GROUP)
            access, tls = self._access()
            certificates = config.openflow_tls(CONF)
            path = CONF.vmm.store or config.default_store()
            store = MemoryStore() if path == ":memory:" else SqliteStore(path)
            self.audit = AuditTrail(path, CONF.vmm.audit_keep)
            self.publisher = config.publisher(CONF)
            self.runtime = Runtime(store, config.settings(CONF), self.publisher.publish)
            self.publisher.tell = self.runtime.event
            self.switchboard = Switchboard(
                self.runtime,
                certificates=certificates,
                meter_rate=self.runtime.nva.meter_rate,
                **config.switchboard(CONF),
            )
            self.runtime.execute = self.switchboard.execute
            if CONF.vmm.inventory:
                self._start_with(CONF.vmm.inventory)
        except VmmError as error:
            # Ryu would print a traceback and go on without us.
            raise SystemExit(f"ryu_vmm: {error.message}") from error
        except OSError as error:
            raise SystemExit(f"ryu_vmm: {error.filename}: {error.strerror}") from error
        _Rest.application = staticmethod(make_app(self.runtime, access, self.audit))
        self._listen(access, tls)
        for route in ("/v1", "/v1/{rest:.*}", "/metrics", "/"):
            wsgi.mapper.connect("vmm", route, controller=_Rest, action="any")
        self.switchboard.install()
        if not certificates and not config.is_local(CONF.ofp_listen_host):
            where = CONF.ofp_listen_host
            LOG.warning("OpenFlow is served on %s without TLS: any switch may claim to be any NVE", where)
        if not CONF.verbose:
            # Ryu's web server logs every request and every connection at info; errors still come through.
            logging.getLogger("ryu.lib.hub").setLevel(logging.WARNING)
        LOG.info("store %s: %d VMs, process %d", path, len(self.runtime.state.vms), os.getpid())

    def _start_with(self, path: str) -> None:
        """Apply an inventory file, and record that, as any other change, before and after."""
        entry = self.audit.begin(started_with(path))
        try:
            applied = inventory.apply_file(self.runtime, path)
        except VmmError as error:
            self.audit.end(entry, replace(started_with(path), code=error.code, result=Result.REFUSED))
            raise
        LOG.info("inventory %s: %s", path, applied)
        self.audit.end(entry, started_with(path, applied))

    @staticmethod
    def _access() -> tuple[Access, Tls | None]:
        """Who may use REST, and how it is served. CredentialsUnusable, TlsUnusable, InvalidInput."""
        group = CONF.vmm
        why = config.exposure(CONF.wsapi_host, group)
        if why is not None:
            raise InvalidInput(why)
        keyring = None if group.credentials is None else Keyring(group.credentials)
        tls = None
        if group.rest_cert is not None:
            tls = Tls(group.rest_cert, group.rest_key, group.rest_client_ca, group.rest_client_required)
            tls.context()  # a file that cannot be used is better known now
        return Access(keyring, offload=tpool.execute), tls

    def _listen(self, access: Access, tls: Tls | None) -> None:
        """Have Ryu start our web server in place of its own."""

        def listener(application: WSGIApplication, **_: Any) -> Listener:
            guard = Guard(application, access, self.audit, CONF.wsapi_host)
            made = Listener((CONF.wsapi_host, CONF.wsapi_port), guard, tls, access.handshake_failed)
            self.runtime.catch_up.waits = lambda: self.switchboard.waits() or made.waits()
            return made

        web.WSGIServer = listener

    @set_ev_cls(ofp_event.EventOFPHello, HANDSHAKE_DISPATCHER)
    def _hello(self, _: Any) -> None:
        """Nothing to do: that this is asked for makes Ryu load its OpenFlow service, which serves the handshake."""

    def start(self) -> None:
        """Called by Ryu once all applications are there."""
        super().start()
        self.threads.append(hub.spawn(self.runtime.run_timers))
        self.threads.append(hub.spawn(self.publisher.run))

    def stop(self) -> None:
        """Called by Ryu at the end, SIGTERM included (see compat.py)."""
        self.publisher.stop()
        self.runtime.stop()
        self.audit.close()
        super().stop()
