"""Train a small convolutional network on a leased table of digits: 64 columns of grey values (0 to 16, row by row) and one `digit`.

`digits` is the leased table; `params` may set `epochs`. The weights come back as a torch checkpoint, the loss as a picture.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = int(params.get("epochs", 10))

pixels = torch.tensor(digits.drop(columns="digit").to_numpy(dtype="float32")).reshape(-1, 1, 8, 8) / 16
labels = torch.tensor(digits["digit"].to_numpy(dtype="int64"))
kept = len(pixels) * 4 // 5
train = DataLoader(TensorDataset(pixels[:kept], labels[:kept]), batch_size=32, shuffle=True)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 16, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
losses = []
for epoch in range(EPOCHS):
    for images, wanted in train:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), wanted)
        loss.backward()
        optimizer.step()
    losses.append(loss.item())
    pandacea_progress(epoch + 1, EPOCHS)

with torch.no_grad():
    right = (model(pixels[kept:]).argmax(1) == labels[kept:]).float().mean().item()
torch.save(model.state_dict(), "digits.pth")
plt.plot(losses)
plt.title(f"accuracy on {len(pixels) - kept} rows: {right:.2f}")  # left open: comes back as figure-1.png
print(f"{EPOCHS} epochs on {kept} rows, accuracy on the others {right:.3f}")
