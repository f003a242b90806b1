"""The tests. While they run, every call in our packages is checked against its annotations."""

from tests.checking import checked as checked
