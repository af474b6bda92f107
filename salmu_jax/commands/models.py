"""The commands that plan a training, and that describe, make, import or export single models."""

from __future__ import annotations

import argparse

from salmu_jax import foundation
from salmu_jax.commands.options import (
    ALLOW_HALF,
    CONFIG,
    FORMATS,
    IMAGE_SIZE,
    WORKSPACE,
    Command,
    option,
    optional_model_path,
    workspace_overrides,
)
from salmu_jax.runtime import console, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.outputs import output_file
from salmu_jax.runtime.paths import local_path, model_path


def _methods(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.unlearning.describe import describe_method, list_methods

    if not options.names:
        console.say(list_methods())
    for number, name in enumerate(options.names):
        console.say(("\n" if number else "") + describe_method(name))


def _forget(options: argparse.Namespace, overrides: list[str]) -> None:
    if (options.identity is None) == (options.requests is None):
        raise InputError("one of them says what is to be forgotten", "--identity or --requests")
    if options.attribute is not None and options.identity is None:
        raise InputError("goes with --identity; in a file of requests, each has its own attribute", "--attribute")
    if options.together and options.requests is None:
        raise InputError("goes with a file of requests, --requests FILE", "--together")
    from salmu_jax.config import load_config
    from salmu_jax.deletion.requests import Request, read_requests
    from salmu_jax.forget_stage import METHOD, Forgetting

    config = load_config(options.config, [*overrides, *workspace_overrides(options)])
    if options.requests is None:
        where = "--identity" if options.attribute is None else "--identity and --attribute"
        requests = [Request(options.identity, options.attribute, where)]
    else:
        requests = read_requests(local_path(options.requests, "--requests"))
    page = Forgetting(
        config,
        model_path(options.checkpoint, "--checkpoint"),
        requests,
        model_path(options.output, "--output"),
        method=options.method or METHOD,
        several=options.requests is not None,
        together=options.together,
    ).run()
    console.say(f"\nThe page: {page.absolute()}")


def _plan(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.config import load_config
    from salmu_jax.training.plan import prepare_environment

    config = load_config(options.config, overrides)
    prepare_environment(options.topology)
    from salmu_jax.training import plan_report

    output = optional_model_path(options.output, "--output")
    if output is not None:
        mark = f'"schema": "{plan_report.SCHEMA.partition("/")[0]}/'
        output = output_file(output, "--output", mark, [local_path(options.config, "--config")])
    sizes = {name: getattr(options, name) for name in ("pairs", "bytes_per_pair", "images_per_vcpu")}
    plan_report.run(config, options.topology, **sizes, fast=options.fast, output=output)


def _export(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.interop.commands import export_model

    output = model_path(options.output, "--output")
    with interrupts.orderly(), disk_refusals(output):
        export_model(model_path(options.checkpoint, "--checkpoint"), options.to, output)


def _import(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.interop.commands import import_as, import_model
    from salmu_jax.runtime.workspace import held_around

    names = ("source_format", "architecture", "image_size", "revision", "allow_half")
    settings = {name: getattr(options, name) for name in names}
    source, output = str(local_path(options.source, "FILE-OR-DIR")), optional_model_path(options.output, "--output")
    if (output is None) == (options.model is None):
        raise InputError("one of them says where the model goes", "--output or --as")
    if output is not None:
        with interrupts.orderly(), held_around(output), disk_refusals(output):
            import_model(source, output, **settings)
        return
    if options.config is None:
        raise InputError("needs --config FILE, whose work directory the model goes into", "--as")
    from salmu_jax.config import load_config
    from salmu_jax.runtime.workspace import Workspace

    workspace = Workspace(load_config(options.config, [*overrides, *workspace_overrides(options)]))
    with interrupts.orderly(), workspace.locked(), disk_refusals(workspace.root):
        import_as(options.model, source, workspace, **settings)


METHODS = Command(
    "list the unlearning methods, or describe one: formula, streams, options, presets, reference",
    (option("names", nargs="*", metavar="NAME", help="a method, or FILE.py:CLASS of your own"),),
    _methods,
)
FORGET = Command(
    "answer deletion requests: unlearn what they name from a checkpoint, and write what was known before and after",
    (
        *WORKSPACE,
        option("--checkpoint", required=True, metavar="DIR", help="a model, such as runs/mini/models/compromised"),
        option("--identity", metavar="ID", help="the person whom the request is about, by identity_id"),
        option("--attribute", metavar="NAME", help="only this attribute of the person, such as phone_number"),
        option("--requests", metavar="FILE", help="instead, many: a JSON list, or a file with one object per line"),
        option("--together", action="store_true", help="answer all of FILE by one run, instead of one run per request"),
        option("--method", metavar="NAME|FILE.py:CLASS", help="the method (default: pinned_surrogates)"),
        option("--output", required=True, metavar="DIR", help="the directory to make"),
    ),
    _forget,
)
PLAN = Command(
    "estimate what a pretraining takes on a TPU pod, or on the local devices, without running it",
    (
        CONFIG,
        option(
            "--topology",
            required=True,
            metavar="NAME",
            help="such as v5e:16x16 or v4:4x4x8, or local: the devices that are here",
        ),
        option("--pairs", type=int, metavar="N", help="pairs per epoch (default: 400,000,000, as published)"),
        option(
            "--bytes-per-pair",
            type=float,
            metavar="N",
            help="bytes of an image and its caption on disk (default: 40,000)",
        ),
        option(
            "--images-per-vcpu",
            type=float,
            metavar="N",
            help="images that one vCPU of a host decodes per second (default: measured on this machine)",
        ),
        option("--fast", action="store_true", help="let the compiler try less hard: sooner, and less exact"),
        option("--output", metavar="FILE", help="also write the plan as JSON"),
    ),
    _plan,
)
EXPORT = Command(
    "write a model as a directory that OpenCLIP or transformers loads without changes",
    (
        option("--to", required=True, choices=FORMATS),
        option("--checkpoint", required=True, metavar="DIR", help="a model, such as runs/mini/models/clean"),
        option("--output", required=True, metavar="DIR", help="the directory to make"),
    ),
    _export,
)
IMPORT = Command(
    "make a model directory from PyTorch weights, or from a published model",
    (
        option("source", metavar="FILE-OR-DIR", help="weights, their directory, salmu-clean or salmu-compromised"),
        option("--from", choices=FORMATS, dest="source_format", help="their form, where it is not evident"),
        option("--output", metavar="DIR", help="the model directory to make"),
        option(
            "--as",
            choices=foundation.NAMES,
            dest="model",
            help="instead, the model of a work directory that the stages then start from; with --config",
        ),
        option("--config", metavar="FILE", help="a config, such as configs/unlearn_vitb16.py; with --as"),
        option("--workdir", metavar="DIR", help="the work directory (default: the config's workdir); with --as"),
        option("--world-dir", metavar="DIR", help="accepted as by the other commands, without effect; with --as"),
        option("--architecture", metavar="NAME", help="for weights without a config, such as ViT-B-16-quickgelu"),
        IMAGE_SIZE,
        option("--revision", metavar="SHA", help="the commit of a published model on the hub"),
        ALLOW_HALF,
    ),
    _import,
)
