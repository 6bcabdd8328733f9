"""Train a small regression on leased tables. Runs inside the Earner's sandbox; only what it writes or prints leaves.

The node puts each leased asset into a variable before the first line: here `features` and `labels`, pandas DataFrames.
`params` holds what the Spender sent beside the code (JSON). Files written to the working folder come back as artifacts.
"""

import json

import torch

EPOCHS = int(params.get("epochs", 200))
RATE = float(params.get("learning_rate", 0.05))

x = torch.tensor(features.to_numpy(dtype="float32"))
y = torch.tensor(labels.to_numpy(dtype="float32")).reshape(len(x), -1)[:, :1]

# Standardise: the means and deviations travel in the model, so that it can be used on raw rows elsewhere.
x_mean, x_std = x.mean(0), x.std(0).clamp_min(1e-6)
y_mean, y_std = y.mean(0), y.std(0).clamp_min(1e-6)

torch.manual_seed(0)
model = torch.nn.Linear(x.shape[1], 1)
optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
for epoch in range(EPOCHS):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model((x - x_mean) / x_std), (y - y_mean) / y_std)
    loss.backward()
    optimizer.step()
    pandacea_progress(epoch + 1, EPOCHS)

torch.save(
    {**model.state_dict(), "x_mean": x_mean, "x_std": x_std, "y_mean": y_mean, "y_std": y_std},
    "model_weights.pth",
)
with open("metrics.json", "w") as file:
    json.dump({"rows": len(x), "epochs": EPOCHS, "loss": round(loss.item(), 6)}, file)
print(f"trained on {len(x)} rows x {x.shape[1]} features, {EPOCHS} epochs: loss {loss.item():.4f}")
