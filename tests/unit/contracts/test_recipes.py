"""A recipe has one canonical form, and with it one name."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.artifacts import RenderJob, decode_job, encode_job, job_id
from contracts.errors import MalformedError
from contracts.presets import PRESETS
from contracts.recipes import Recipe, decode_recipe, encode_recipe, render_name
from tests import strategies


@given(strategies.recipes)
def test_decoding_gives_the_canonical_recipe(recipe: Recipe):
    """decode(encode(recipe)) is the recipe in its canonical form, which is canonical itself."""
    canonical = recipe.canonical()
    assert decode_recipe(encode_recipe(recipe)) == canonical == canonical.canonical()


@given(strategies.recipes, st.randoms(use_true_random=False))
def test_the_same_recipe_in_any_spelling_has_one_name(recipe: Recipe, random: Random):
    """Order, repetition, 0 dB and explicit defaults change neither the bytes nor the name."""
    fields = msgspec.to_builtins(recipe)
    for name in ("people", "mute"):
        if fields.get(name):
            fields[name] = random.sample(fields[name] * 2, len(fields[name]) * 2)
    fields["gain_db"] = {**dict(random.sample(list(fields.get("gain_db", {}).items()), len(recipe.gain_db))), "7": 0}
    if recipe.people is None:
        fields["people"] = None
    fields.setdefault("output", "mix")
    fields.setdefault("start_tick", 0)
    fields.setdefault("bitrate_kbps", None)
    fields.setdefault("loudness", recipe.aims_at)
    fields.setdefault("levelling", recipe.levels)
    items = list(fields.items())
    random.shuffle(items)
    respelled = decode_recipe(msgspec.json.encode(dict(items)))
    if "7" not in recipe.gain_db:
        assert encode_recipe(respelled) == encode_recipe(recipe)
        assert render_name(respelled, log_end=9, engine="e") == render_name(recipe, log_end=9, engine="e")
        assert job_id("s", respelled) == job_id("s", recipe)


@given(strategies.recipes, st.lists(strategies.snowflakes))
def test_the_canonical_form_hears_the_same_people(recipe: Recipe, others: list[str]):
    """Nobody's voice comes or goes with the spelling, nor does a gain of somebody who is heard."""
    canonical = recipe.canonical()
    for user in {*others, *recipe.mute, *(recipe.people or ()), *recipe.gain_db}:
        assert canonical.hears(user) == recipe.hears(user)
        if recipe.hears(user):
            assert canonical.gain_db.get(user, 0) == recipe.gain_db.get(user, 0)


def test_whole_numbers_and_floats_are_the_same_gain():
    """A gain of 3 dB is 3.0 dB, whether a person or a program wrote it."""
    assert encode_recipe(Recipe(gain_db={"1": 3})) == encode_recipe(Recipe(gain_db={"1": 3.0}))


def test_muting_somebody_who_is_not_asked_for_changes_nothing():
    """People minus muted is one thing, however it is said."""
    assert encode_recipe(Recipe(people=("1", "2"), mute=("2", "3"))) == encode_recipe(Recipe(people=("1",)))


def test_a_default_that_depends_on_the_output_is_left_out():
    """A mix is levelled and followed anyway, tracks are not: saying so changes no name."""
    spelled = Recipe(loudness="followed", levelling=True)
    assert encode_recipe(spelled) == encode_recipe(Recipe())
    tracks = Recipe(output="tracks", format="flac")
    assert encode_recipe(msgspec.structs.replace(tracks, loudness="off", levelling=False)) == encode_recipe(tracks)
    assert encode_recipe(Recipe(loudness="off")) != encode_recipe(Recipe())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_canonical(name: str):
    """What a preset asks for says nothing twice."""
    assert PRESETS[name].canonical() == PRESETS[name]


def test_the_alignment_that_an_output_takes_by_itself_need_not_be_named():
    assert encode_recipe(Recipe(alignment="follow")) == encode_recipe(Recipe())
    assert encode_recipe(Recipe(output="tracks", alignment="hindsight")) == encode_recipe(Recipe(output="tracks"))
    assert encode_recipe(Recipe(alignment="hindsight")) != encode_recipe(Recipe())


def test_nobody_is_not_everybody():
    """An empty list of people is another recipe than none."""
    assert encode_recipe(Recipe(people=())) != encode_recipe(Recipe())


def test_a_field_at_its_default_is_not_written():
    """A later field, at its default, leaves every old name as it is."""
    assert encode_recipe(Recipe()) == b"{}"


@given(strategies.recipes, strategies.recipes)
def test_different_recipes_have_different_names(one: Recipe, other: Recipe):
    """Names are equal exactly if the canonical forms are."""
    same = one.canonical() == other.canonical()
    assert (render_name(one, log_end=1, engine="e") == render_name(other, log_end=1, engine="e")) == same


def test_log_range_and_engine_are_in_the_name():
    """A longer log or another engine is another file."""
    names = {
        render_name(Recipe(), log_end=end, engine=engine) for end in (1, 11, 111) for engine in ("1", "11", "1\n1")
    }
    assert len(names) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"format":"aac"}',
        b'{"bits":24}',
        b'{"bits":20,"format":"wav"}',
        b'{"vbr_quality":2,"format":"flac"}',
        b'{"vbr_quality":2,"bitrate_kbps":128}',
        b'{"vbr_quality":10}',
        b'{"container":"zip"}',
        b'{"container":"matroska","output":"tracks","format":"mp3"}',
        b'{"container":"audacity","output":"tracks","format":"opus"}',
        b'{"loudness":"loud"}',
        b'{"gate_db":3}',
        b'{"silence":"some"}',
        b'{"colour":"red"}',
        b'{"gain_db":{"1":99}}',
        b'{"gain_db":{"1":null}}',
        b'{"start_tick":-1}',
        b'{"start_tick":1.5}',
        b'{"bitrate_kbps":5000}',
        b'{"bitrate_kbps":129}',
        b'{"bitrate_kbps":16}',
        b'{"people":[1]}',
        b'{"start_tick":5,"stop_tick":5}',
        b'{"start_tick":6,"stop_tick":5}',
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: bytes):
    """On its own, and inside a job: a mixer must never meet it."""
    with pytest.raises(MalformedError):
        decode_recipe(wrong)
    with pytest.raises(MalformedError):
        decode_job(b'{"id":"i","session":"s","recipe":' + wrong + b"}")


@given(strategies.recipes)
def test_a_job_survives_the_wire(recipe: Recipe):
    """decode(encode(job)) is the job."""
    job = RenderJob(id="i", session="s", recipe=recipe, requested_by="me")
    assert decode_job(encode_job(job)) == job
