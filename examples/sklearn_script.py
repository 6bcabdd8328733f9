"""Fit a logistic regression on a leased table with scikit-learn and bring its coefficients home as JSON, which nobody has to unpickle.

`patients` is the leased table; `params` may name the column to predict (`target`), the columns to use (`features`) and the penalties
to try (`penalties`).
"""

import json

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

target = params.get("target", "ill")
features = params.get("features") or [name for name in patients.columns if name != target]
x, y = patients[features], patients[target]

grid = {"logisticregression__C": params.get("penalties", [0.1, 1.0, 10.0])}
search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), grid, cv=3, n_jobs=-1).fit(x, y)
scaler, model = search.best_estimator_.named_steps.values()

with open("coefficients.json", "w") as file:
    json.dump(
        {
            "features": list(features),
            "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
            "coefficients": model.coef_[0].tolist(),
            "intercept": float(model.intercept_[0]),
            "classes": model.classes_.tolist(),
        },
        file,
    )
print(f"{len(x)} rows, best penalty {search.best_params_['logisticregression__C']}, accuracy {search.best_score_:.3f}")
