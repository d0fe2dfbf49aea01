#!/usr/bin/env python3
"""A client of Plumb's API with stock grpcio: lists machines, plans, applies, watches the status, shows an error's details.

It needs the modules that protoc makes of proto/, and a context file as `plumb server` or `plumb login` writes it:

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=gen --grpc_python_out=gen proto/plumb/v1/*.proto
    PYTHONPATH=gen python docs/python/plumb_client.py --context ~/.config/plumb/contexts/main.json machines

Everything here is in docs/API.md: how to connect, what errors carry, how pages and watches go on.
"""

import argparse
import json
import pathlib
import sys

import grpc

from plumb.v1 import (
    control_plane_pb2,
    control_plane_pb2_grpc,
    error_pb2,
    machines_pb2,
    machines_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
)

# The name in every control plane's certificate, whatever address it is reached at: the CA says which one it is.
SERVER_NAME = "control-plane.plumb.internal"

# A plan of a large workspace is larger than the 4 MiB that gRPC takes by itself.
OPTIONS = [
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]


class Plumb:
    """A connection to a control plane, by a context file."""

    def __init__(self, context_file):
        context = json.loads(pathlib.Path(context_file).read_text())
        credentials = grpc.ssl_channel_credentials(context["ca_pem"].encode())
        self.channel = grpc.secure_channel(context["address"], credentials, OPTIONS)
        # With every call: who asks, and which workspace it is about.
        self.metadata = [
            ("authorization", "Bearer " + context["token"]),
            ("plumb-workspace", context["workspace"]),
        ]
        self.api = control_plane_pb2_grpc.ControlPlaneStub(self.channel)
        self.fleet = machines_pb2_grpc.MachinesStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    def call(self, method, request, timeout=30):
        """One call, within a deadline that the control plane honours too."""
        return method(request, metadata=self.metadata, timeout=timeout)

    def health(self):
        return self.call(self.operations.GetHealth, operations_pb2.GetHealthRequest())

    def machines(self):
        """Every machine, page by page."""
        token = ""
        while True:
            request = machines_pb2.ListMachinesRequest(page_size=100, page_token=token)
            page = self.call(self.fleet.ListMachines, request)
            yield from page.machines
            token = page.next_page_token
            if not token:
                return

    def plan(self, request):
        return self.call(self.api.Plan, request)

    def apply(self, request, planned, allow=()):
        """Records exactly what was planned, or nothing."""
        apply = control_plane_pb2.ApplyRequest(
            request=request,
            approval=planned.approval,
            base_revision=planned.base_revision,
            allow=allow,
        )
        return self.call(self.api.Apply, apply)

    def watch(self, resume_token="", timeout=60):
        """The workspace whenever it changes, with the token by which to go on when the connection is lost."""
        request = control_plane_pb2.WatchRequest(resume_token=resume_token)
        for news in self.call(self.api.Watch, request, timeout):
            if news.view_json:
                yield json.loads(news.view_json), news.resume_token


def blueprints(folder):
    """A request to plan the YAML files of a folder, as they are written."""
    root = pathlib.Path(folder)
    files = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.yaml"))}
    return control_plane_pb2.PlanRequest(texts=control_plane_pb2.Texts(files=files))


def details(error):
    """Why a call was refused, for programs: the reason and what it is about. None for an error that is not Plumb's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return error_info(value)
    return None


def error_info(status):
    """Finds plumb.v1.ErrorInfo in the bytes of a google.rpc.Status: field 3 holds the details, each a google.protobuf.Any."""
    from google.protobuf import any_pb2

    for detail in fields(status, 3):
        packed = any_pb2.Any.FromString(detail)
        if packed.type_url.endswith("/plumb.v1.ErrorInfo"):
            return error_pb2.ErrorInfo.FromString(packed.value)
    return None


def fields(message, wanted):
    """The length-delimited fields of this number in an encoded message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            varint()
        elif kind == 2:
            length = varint()
            if number == wanted:
                yield message[at : at + length]
            at += length
        else:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", required=True, help="a context file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("health", help="how the control plane is")
    commands.add_parser("machines", help="list the machines")
    for name, text in (("plan", "show what would change"), ("apply", "plan, and record that")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", help="a folder with blueprints")
        command.add_argument("--allow", default="", help="consents, separated by commas")
    watch = commands.add_parser("watch", help="show the status until everything has converged")
    watch.add_argument("--resume", default="", help="the token of the last status that was seen")
    arguments = parser.parse_args()
    plumb = Plumb(arguments.context)
    try:
        run(plumb, arguments)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        info = details(error)
        if info:
            print(f"reason: {info.reason}", file=sys.stderr)
            for key in sorted(info.metadata):
                print(f"  {key}: {info.metadata[key]}", file=sys.stderr)
        sys.exit(1)


def run(plumb, arguments):
    if arguments.command == "health":
        health = plumb.health()
        print(f"plumb {health.version}, {'ready' if health.ready else 'not ready'}")
        for part in health.parts:
            print(f"  {part.name}: {part.message}")
    elif arguments.command == "machines":
        for machine in plumb.machines():
            print(f"{machine.name}: {'online' if machine.online else 'offline'}")
    elif arguments.command in ("plan", "apply"):
        request = blueprints(arguments.folder)
        planned = plumb.plan(request)
        changes = json.loads(planned.plan_json)["changes"]
        print(f"{len(changes)} resources change, against revision {planned.base_revision}")
        if arguments.command == "apply":
            allow = [name for name in arguments.allow.split(",") if name]
            print(f"recorded as revision {plumb.apply(request, planned, allow).revision}")
    elif arguments.command == "watch":
        for view, token in plumb.watch(arguments.resume):
            states = {owner["name"]: owner["state"] for owner in view["owners"]}
            print(f"revision {view['revision']}: {json.dumps(states)}; go on with {token}", flush=True)
            if all(state in ("converged", "stopped") for state in states.values()):
                return


if __name__ == "__main__":
    main()
