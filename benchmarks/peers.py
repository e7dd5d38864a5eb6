"""Other ways to serve the same XGBoost model over HTTP; none of them records, and only one explains."""

import gc
import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd
import xgboost
from fastapi import FastAPI, Request

from cde_domain.application import columns_of
from cde_domain.clock import utc_now
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.application import PersonalLoanApplication
from cde_domain.training.boosting import to_dmatrix

MODEL = "BENCHMARK_MODEL"

_columns = columns_of(PORTFOLIO.application)
_names = [feature.name for feature in PORTFOLIO.features]


def _booster() -> xgboost.Booster:
    booster = xgboost.Booster(model_file=os.environ[MODEL])
    booster.set_param({"nthread": 1})
    return booster


def _features(body: bytes) -> np.ndarray:
    application = PersonalLoanApplication.model_validate_json(body)
    return feature_matrix(PORTFOLIO.features, columns_of_applications([application], _columns, utc_now().date()))


def score_only() -> FastAPI:
    """FastAPI and XGBoost: the score and nothing else."""
    app, booster = FastAPI(), _booster()

    @app.post("/score")
    async def score(request: Request) -> dict[str, float]:
        return {"score": float(booster.inplace_predict(_features(await request.body()))[0])}

    return app


def with_contributions() -> FastAPI:
    """FastAPI and XGBoost: the score and XGBoost's contributions."""
    app, booster = FastAPI(), _booster()

    @app.post("/score")
    async def score(request: Request) -> dict[str, Any]:
        row = to_dmatrix(PORTFOLIO.features, _features(await request.body()))
        contributions = booster.predict(row, pred_contribs=True)[0]
        margin = float(contributions.sum())
        return {"score": 1 / (1 + np.exp(-margin)), "contributions": dict(zip(_names, contributions[:-1].tolist()))}  # noqa: B905

    return app


def plain_uvicorn() -> Any:
    """Our own service without BentoML around it."""
    from cde_serving.app import create_app
    from cde_serving.service import open_scorer
    from cde_serving.settings import Settings

    app = create_app(open_scorer(Settings()))
    gc.collect()  # as the service does
    gc.freeze()
    return app


@bentoml.service(name="score_only", workers=1, traffic={"timeout": 10}, metrics={"enabled": False})
class BentoApi:
    """BentoML's own api decorator: the score and nothing else."""

    def __init__(self) -> None:
        self._booster = _booster()

    @bentoml.api(route="/score")
    def score(self, dataframe_split: dict[str, Any]) -> dict[str, float]:
        """The score of one row of features."""
        row = np.array(dataframe_split["data"], dtype=np.float64)
        return {"score": float(self._booster.inplace_predict(row)[0])}


def save_for_mlflow(booster: xgboost.Booster, features: pd.DataFrame, folder: Path) -> None:
    """The model as MLflow's XGBoost flavour writes it, with the signature that MLflow asks for."""
    import mlflow

    signature = mlflow.models.infer_signature(features, booster.inplace_predict(features.to_numpy()))
    mlflow.xgboost.save_model(booster, folder, signature=signature, pip_requirements=[])
