"""Published results: their data hold together, and what was not modelled is never passed over."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from migemu.experiment import published_qemu  # noqa: F401 - it registers those that come with migemu
from migemu.experiment.publication import Publication, between, judge, publications
from migemu.scenario.scenario import Scenario
from tests.unit.experiment.worlds import PLAIN, plain

NAMES = [entry.name for entry in publications]


def migemu(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["reproduce", *arguments, "--world", PLAIN])


def made(name: str) -> Publication:
    return publications.create(name)


def test_the_first_two_are_there() -> None:
    assert {"qemu-doublemap", "qemu-preempt"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_where_it_is_from_and_every_figure_has_its_variant(name: str) -> None:
    publication = made(name)
    variants = {variant.name: variant for variant in publication.variants}
    settings = [*publication.settings, *(each for variant in variants.values() for each in variant.settings)]
    assert all(len(each.source) > 5 for each in settings)
    assert {figure.variant for figure in publication.figures} == set(variants)
    assert all(figure.low <= figure.high for figure in publication.figures)


@pytest.mark.parametrize("name", NAMES)
def test_published_shares_and_counts_are_those_of_the_published_histogram(name: str) -> None:
    """Each figure of buckets, applied to the published histogram itself, gives what is published beside it."""
    publication = made(name)
    for variant in publication.variants:
        histogram = variant.histogram_us
        result = plain(Scenario(), None)
        result["fault"] |= {"count": sum(histogram.values()), "log2_us": {str(at): n for at, n in histogram.items()}}
        for figure in publication.figures:
            if figure.variant == variant.name and histogram and figure.name != "mean":
                assert figure.of(result) == pytest.approx(figure.low, rel=0.005), figure.name


@pytest.mark.parametrize(
    ("name", "variant", "mean_us"),
    [
        ("qemu-doublemap", "without-hgm", 1_000_000), ("qemu-doublemap", "with-hgm", 250),
        ("qemu-preempt", "one-channel", 12_093), ("qemu-preempt", "preempt-channel", 496),
        ("qemu-preempt", "return-path-thread", 229),
    ],
)  # fmt: skip
def test_published_means_are_those_that_the_histogram_allows(name: str, variant: str, mean_us: int) -> None:
    histogram = next(each.histogram_us for each in made(name).variants if each.name == variant)
    samples = sum(histogram.values())
    least = sum(bound * count for bound, count in histogram.items()) / samples
    assert least <= mean_us <= 2 * least


def test_one_set_of_constants_serves_both() -> None:
    def constants(name: str) -> dict[str, object]:
        machine = ("link.", "return_link.", "net.", "costs.", "push.run", "push.piece", "pull.piece")
        return {each.key: each.value for each in made(name).settings if each.key.startswith(machine)}

    assert constants("qemu-doublemap") == constants("qemu-preempt")


@pytest.mark.parametrize(
    ("modelled", "error"), [(148.0, 0.0), (74.0, -0.5), (222.0, 0.5)]
)  # fmt: skip
def test_the_error_is_that_of_the_published_figure(modelled: float, error: float) -> None:
    figure = made("qemu-doublemap").figures[0]
    assert figure.error(modelled) == error
    assert between({64: 1, 128: 2, 256: 4}, 64, 256) == 3


def test_published_and_modelled_stand_side_by_side_with_every_assumption() -> None:
    result = migemu("qemu-preempt")
    assert result.exit_code == 0
    for told in ("12.093ms", "496us", "229us", "return-path-thread", "modelled", "error"):
        assert told in result.output
    assert "[sysctl] Linux Documentation/networking/ip-sysctl.rst" in result.output
    for setting, why in made("qemu-preempt").assumptions():
        assert " ".join(f"{setting}: {why}".split()[:4]) in " ".join(result.output.split()) or not setting


def test_a_variant_that_cannot_run_keeps_its_figures_without_a_counterpart() -> None:
    result = migemu("qemu-doublemap", "--set", "memory.size=1536M", "--json")
    assert result.exit_code == 2
    figures = json.loads(result.stdout)["figures"]
    assert {each["variant"] for each in figures} == {"without-hgm", "with-hgm"}
    assert all((each["modelled"], each["error"]) == (None, None) for each in figures)
    assert "not whole hugetlb pages" in figures[0]["problem"]


def test_one_variant_may_be_run_alone_and_settings_changed_which_is_said() -> None:
    result = migemu("qemu-doublemap", "--variant", "with-hgm", "--set", "memory.size=1G")
    assert result.exit_code == 0, result.output
    assert "changed: memory.size=1G: not what was published" in result.output
    assert "without-hgm" not in result.output.split("assumed")[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a published result"),
        (("qemu",), "unknown published result 'qemu'"),
        (("qemu-preempt", "--variant", "none"), "unknown variant of qemu-preempt 'none'; known: one-channel"),
        (("qemu-preempt", "--set", "link.speed=1"), "link.speed: unknown setting 'speed'; known: preset, rate"),
    ],
)
def test_bad_input_is_told(arguments: tuple[str, ...], told: str) -> None:
    result = migemu(*arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_the_list_names_sources() -> None:
    result = CliRunner().invoke(main, ["reproduce", "--list"])
    assert result.exit_code == 0
    assert "20230117220914.2062125-1" in result.output.replace("\n", "")


def test_figures_of_a_run_without_faults_are_not_made_up() -> None:
    publication = made("qemu-doublemap")
    result = plain(Scenario(), None)
    result["fault"] |= {"count": 0, "mean_ns": 0, "log2_us": {}}
    rows = {(row.figure.variant, row.figure.name): row for row in judge(publication, {"with-hgm": result}, {})}
    assert rows["with-hgm", "mean"].modelled is None
    assert rows["with-hgm", "faults"].modelled == 0
    assert rows["without-hgm", "mean"].problem == "not run"
