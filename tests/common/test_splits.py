from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import DataError
from common.splits import SPLITS, Known, OneOf, Splits, fold, read_names, resolve

KNOWN = [Known(f"case_{n}", group=f"p{n // 2}", annotated=n < 8) for n in range(12)]


def problems(**splits):
    return resolve(Splits(**splits), KNOWN).problems


def test_rest_is_every_case_that_is_named_nowhere_else():
    found = resolve(Splits(labeled=("case_0",), test=("case_2", "case_3")), KNOWN)
    assert found.problems == ()
    assert found.warnings == ()
    assert found.names("unlabeled") == tuple(f"case_{n}" for n in [1, 4, 5, 6, 7, 8, 9, 10, 11])


def test_rest_leaves_out_the_other_cases_of_a_patient_that_is_judged():
    found = resolve(Splits(labeled=("case_0",), test=("case_2",)), KNOWN)
    assert "case_3" not in found.names("unlabeled")
    assert found.warnings == (
        "left out of splits.unlabeled, because validation or test holds another case of the same "
        "group: case_3.",
    )


def test_names_may_lie_in_a_text_file_with_remarks(tmp_path):
    file = tmp_path / "labeled.txt"
    file.write_text("# four of them\n\ncase_0\n  case_1  \n", encoding="utf-8")
    found = resolve(Splits(labeled=file), KNOWN)
    assert found.names("labeled") == ("case_0", "case_1")
    assert found.splits == Splits.model_validate(found.splits.model_dump(mode="json"))


def test_a_resolved_split_resolves_to_itself():
    once = resolve(Splits(labeled=("case_0",), test=("case_2", "case_3")), KNOWN)
    assert resolve(once.splits, KNOWN).splits == once.splits


def test_a_missing_file_is_a_problem_and_not_a_crash(tmp_path):
    found = problems(labeled=("case_0",), test=tmp_path / "gone.txt")
    assert len(found) == 1
    assert found[0].startswith(f"splits.test: {tmp_path / 'gone.txt'} cannot be read")
    with pytest.raises(DataError, match="cannot be read as a list"):
        read_names(tmp_path / "gone.txt")


def test_every_problem_is_told_at_once():
    found = problems(
        labeled=("case_0", "case_0", "case_9", "kase_1"),
        unlabeled=("case_4",),
        validation=("case_4",),
        test=("case_5",),
    )
    assert found == (
        "splits.labeled names case_0 more than once. Name it once.",
        "splits.labeled: the data holds no case 'kase_1'. Did you mean 'case_1'?",
        "case 'case_4' is in splits unlabeled and validation. Keep it in one.",
        "group 'p2' (one patient or block) is on two sides: 'case_4' in training and 'case_4' in "
        "validation and 'case_5' in test. Keep all its cases on one.",
        "splits.labeled needs labels, but these cases have none: case_9. Add their label files, "
        "or move them to splits.unlabeled.",
    )


def test_a_patient_may_be_labeled_and_unlabeled_at_once():
    assert problems(labeled=("case_0",), unlabeled=("case_1",)) == ()


def test_many_unknown_names_make_one_sentence():
    found = problems(labeled=("case_0",), test=tuple(f"nobody_{n}" for n in range(40)))
    assert len(found) == 1
    assert "and 35 more" in found[0]


def test_no_labeled_case_is_a_problem():
    assert problems(labeled=()) == (
        "splits.labeled names no case: training needs at least one case with a label.",
    )


def test_rest_is_a_word_of_unlabeled_only():
    assert Splits(labeled=("a",), unlabeled="rest").unlabeled == "rest"
    with pytest.raises(ValidationError):
        Splits(labeled=("a",), holdout=("b",))


@given(st.lists(st.sampled_from(SPLITS), min_size=12, max_size=12))
def test_without_problems_the_splits_are_disjoint_and_their_patients_too(homes):
    named = {
        split: tuple(case.name for case, home in zip(KNOWN, homes, strict=True) if home == split)
        for split in SPLITS
    }
    found = resolve(Splits(**named), KNOWN)
    if found.problems:
        return
    everyone = [name for split in SPLITS for name in found.names(split)]
    assert len(everyone) == len(set(everyone))
    group = {case.name: case.group for case in KNOWN}
    judged = {group[name] for split in ("validation", "test") for name in found.names(split)}
    taught = {group[name] for split in ("labeled", "unlabeled") for name in found.names(split)}
    assert not judged & taught


@given(
    sizes=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 9), min_size=1),
    count=st.integers(1, 6),
    seed=st.integers(0, 3),
)
def test_each_group_is_in_one_fold_and_folds_are_about_equally_large(sizes, count, seed) -> None:
    assume(count <= len(sizes))
    folds = [fold(sizes, OneOf(number, count), seed=seed) for number in range(1, count + 1)]
    assert sorted(name for own in folds for name in own) == sorted(sizes)
    cases = [sum(sizes[name] for name in own) for own in folds]
    assert max(cases) - min(cases) <= max(sizes.values())
    assert folds == [fold(sizes, OneOf(n, count), seed=seed) for n in range(1, count + 1)]


def test_another_seed_makes_other_folds_and_too_many_are_refused() -> None:
    sizes = {f"p{number}": 1 for number in range(20)}
    assert len({frozenset(fold(sizes, OneOf(1, 5), seed=seed)) for seed in range(5)}) > 1
    with pytest.raises(DataError, match=r"5 folds cannot be made of 3 patients or blocks"):
        fold({"a": 9, "b": 1, "c": 1}, OneOf(1, 5), seed=0)
