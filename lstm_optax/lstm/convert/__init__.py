"""Other libraries' LSTMs as this library's parameters, and back; a file for each library."""
