"""A portfolio is loaded by name, by import path, or from the copy of its code in a bundle."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cde_domain.portfolio.declaration import Portfolio
from cde_domain.portfolio.errors import PortfolioError

SHIPPED = "cde_domain.portfolios"


def load_portfolio(reference: str) -> Portfolio:
    """
    Load a portfolio by shipped name (`german_credit`) or import path (`my_bank.car_loans:PORTFOLIO`).

    The working directory is searched too, so that a portfolio in any folder can be named from there.

    Raises:
        PortfolioError: there is no such portfolio, or it contradicts itself.
    """
    module, _, attribute = reference.partition(":")
    if not attribute:
        module, attribute = f"{SHIPPED}.{reference}", "PORTFOLIO"
    try:
        return _attribute(_import(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise PortfolioError(
            f"there is no portfolio {reference!r}: give one of {', '.join(shipped_portfolios())}, "
            "or an import path such as my_bank.car_loans:PORTFOLIO"
        ) from error


def shipped_portfolios() -> tuple[str, ...]:
    """The names of the portfolios in this package."""
    return tuple(sorted(path.parent.name for path in (Path(__file__).parents[1] / "portfolios").glob("*/__init__.py")))


def _import(module: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(module)


def _attribute(module: ModuleType, attribute: str) -> Portfolio:
    portfolio = getattr(module, attribute, None)
    if not isinstance(portfolio, Portfolio):
        raise PortfolioError(f"{module.__name__}:{attribute} is not a Portfolio")
    return portfolio


@dataclass(frozen=True)
class PortfolioCode:
    """The files that define a portfolio, as they travel with a model: relative path to source file."""

    module: str
    attribute: str
    files: Mapping[str, Path]


def portfolio_code(reference: str) -> PortfolioCode:
    """
    The code of a portfolio: the Python and YAML files of its package, or its module and policy where it has none.

    Siblings are imported relatively, so that the copy in a bundle runs under another name.
    """
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        module_name, attribute = f"{SHIPPED}.{reference}", "PORTFOLIO"
    module = _import(module_name)
    portfolio = _attribute(module, attribute)
    path = Path(str(module.__file__))
    if path.name != "__init__.py" and "." not in module_name:
        files = {path.name: path, portfolio.policy_file.name: portfolio.policy_file}
        return PortfolioCode(path.stem, attribute, files)
    folder = path.parent
    found = sorted(file for pattern in ("*.py", "*.yaml") for file in folder.rglob(pattern))
    return PortfolioCode(path.stem, attribute, {file.relative_to(folder).as_posix(): file for file in found})


def load_portfolio_copy(folder: Path, module: str, attribute: str, package: str) -> Portfolio:
    """
    Load a portfolio from a folder that holds a copy of its code, as part of the package named `package`.

    Two versions of a portfolio live in one process under two package names. Whoever loads has verified the files.
    """
    # No bytecode beside the copy: a changed cache would be run in place of the verified source.
    writes_bytecode, sys.dont_write_bytecode = not sys.dont_write_bytecode, True
    try:
        if package not in sys.modules:
            _import_package(folder, package)
        loaded = sys.modules[package] if module == "__init__" else importlib.import_module(f"{package}.{module}")
    finally:
        sys.dont_write_bytecode = not writes_bytecode
    return _attribute(loaded, attribute)


def _import_package(folder: Path, package: str) -> None:
    entry = folder / "__init__.py"
    if not entry.exists():
        parent = ModuleType(package)
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
        return
    spec = importlib.util.spec_from_file_location(package, entry, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[package])
    except BaseException:
        del sys.modules[package]
        raise
