"""RNN, LSTM and GRU: linear layers inside, and a loop over time."""
