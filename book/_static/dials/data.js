// Written by tools/book/dials.py: what stands in the strips beside it.
window.DIALS = {
 "noising": {
  "label": "timestep t",
  "values": [
   "0",
   "50",
   "100",
   "150",
   "200",
   "250",
   "300",
   "350",
   "400",
   "450",
   "500",
   "550",
   "600",
   "650",
   "700",
   "750",
   "800",
   "850",
   "900",
   "950",
   "1000"
  ],
  "panels": [
   "linear",
   "cosine",
   "straight"
  ],
  "says": [
   [
    "α 1.00, σ 0.00",
    "α 1.00, σ 0.00",
    "α 1.00, σ 0.00"
   ],
   [
    "α 0.99, σ 0.17",
    "α 1.00, σ 0.09",
    "α 0.95, σ 0.05"
   ],
   [
    "α 0.95, σ 0.32",
    "α 0.99, σ 0.17",
    "α 0.90, σ 0.10"
   ],
   [
    "α 0.89, σ 0.46",
    "α 0.97, σ 0.24",
    "α 0.85, σ 0.15"
   ],
   [
    "α 0.81, σ 0.58",
    "α 0.95, σ 0.32",
    "α 0.80, σ 0.20"
   ],
   [
    "α 0.72, σ 0.69",
    "α 0.92, σ 0.39",
    "α 0.75, σ 0.25"
   ],
   [
    "α 0.63, σ 0.78",
    "α 0.89, σ 0.46",
    "α 0.70, σ 0.30"
   ],
   [
    "α 0.53, σ 0.85",
    "α 0.85, σ 0.53",
    "α 0.65, σ 0.35"
   ],
   [
    "α 0.44, σ 0.90",
    "α 0.80, σ 0.59",
    "α 0.60, σ 0.40"
   ],
   [
    "α 0.36, σ 0.93",
    "α 0.76, σ 0.65",
    "α 0.55, σ 0.45"
   ],
   [
    "α 0.28, σ 0.96",
    "α 0.70, σ 0.71",
    "α 0.50, σ 0.50"
   ],
   [
    "α 0.22, σ 0.98",
    "α 0.65, σ 0.76",
    "α 0.45, σ 0.55"
   ],
   [
    "α 0.16, σ 0.99",
    "α 0.58, σ 0.81",
    "α 0.40, σ 0.60"
   ],
   [
    "α 0.12, σ 0.99",
    "α 0.52, σ 0.85",
    "α 0.35, σ 0.65"
   ],
   [
    "α 0.08, σ 1.00",
    "α 0.45, σ 0.89",
    "α 0.30, σ 0.70"
   ],
   [
    "α 0.06, σ 1.00",
    "α 0.38, σ 0.93",
    "α 0.25, σ 0.75"
   ],
   [
    "α 0.04, σ 1.00",
    "α 0.31, σ 0.95",
    "α 0.20, σ 0.80"
   ],
   [
    "α 0.03, σ 1.00",
    "α 0.23, σ 0.97",
    "α 0.15, σ 0.85"
   ],
   [
    "α 0.02, σ 1.00",
    "α 0.16, σ 0.99",
    "α 0.10, σ 0.90"
   ],
   [
    "α 0.01, σ 1.00",
    "α 0.08, σ 1.00",
    "α 0.05, σ 0.95"
   ],
   [
    "α 0.01, σ 1.00",
    "α 0.00, σ 1.00",
    "α 0.00, σ 1.00"
   ]
  ],
  "start": 6,
  "size": 64
 },
 "steps": {
  "label": "steps",
  "values": [
   "1",
   "2",
   "3",
   "5",
   "10",
   "20",
   "50",
   "120",
   "250"
  ],
  "panels": [
   "ddpm",
   "ddim",
   "heun",
   "dpmpp_2m"
  ],
  "says": [
   [
    "network asked once",
    "network asked once",
    "network asked once",
    "network asked once"
   ],
   [
    "network asked 2 times",
    "network asked 2 times",
    "network asked 3 times",
    "network asked 2 times"
   ],
   [
    "network asked 3 times",
    "network asked 3 times",
    "network asked 5 times",
    "network asked 3 times"
   ],
   [
    "network asked 5 times",
    "network asked 5 times",
    "network asked 9 times",
    "network asked 5 times"
   ],
   [
    "network asked 10 times",
    "network asked 10 times",
    "network asked 19 times",
    "network asked 10 times"
   ],
   [
    "network asked 20 times",
    "network asked 20 times",
    "network asked 39 times",
    "network asked 20 times"
   ],
   [
    "network asked 50 times",
    "network asked 50 times",
    "network asked 99 times",
    "network asked 50 times"
   ],
   [
    "network asked 120 times",
    "network asked 120 times",
    "network asked 239 times",
    "network asked 120 times"
   ],
   [
    "network asked 250 times",
    "network asked 250 times",
    "network asked 499 times",
    "network asked 250 times"
   ]
  ],
  "start": 3,
  "size": 64
 },
 "switch": {
  "label": "steps with gold, then fish",
  "values": [
   "0",
   "1",
   "2",
   "3",
   "4",
   "5",
   "6",
   "7",
   "8",
   "9",
   "10",
   "11",
   "12",
   "13",
   "14",
   "15",
   "16",
   "17",
   "18",
   "19",
   "20"
  ],
  "panels": [
   "",
   "",
   "",
   "",
   "",
   ""
  ],
  "says": [
   [
    "gold in 0 of 6, fish in 6 of 6"
   ],
   [
    "gold in 0 of 6, fish in 5 of 6"
   ],
   [
    "gold in 0 of 6, fish in 5 of 6"
   ],
   [
    "gold in 0 of 6, fish in 5 of 6"
   ],
   [
    "gold in 2 of 6, fish in 3 of 6"
   ],
   [
    "gold in 2 of 6, fish in 3 of 6"
   ],
   [
    "gold in 3 of 6, fish in 2 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ],
   [
    "gold in 5 of 6, fish in 0 of 6"
   ]
  ],
  "start": 6,
  "size": 64
 },
 "guidance": {
  "label": "guidance scale",
  "values": [
   "1",
   "1.5",
   "2",
   "2.5",
   "3",
   "3.5",
   "4",
   "4.5",
   "5",
   "5.5",
   "6",
   "6.5",
   "7",
   "7.5",
   "8",
   "8.5",
   "9",
   "9.5",
   "10"
  ],
  "panels": [
   "bird",
   "fish",
   "gold",
   "water"
  ],
  "says": [],
  "start": 4,
  "size": 64
 }
};
