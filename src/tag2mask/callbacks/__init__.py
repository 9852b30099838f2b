"""Lightning callbacks: scores, pictures and CAM files. Each does one thing and can be used alone."""
