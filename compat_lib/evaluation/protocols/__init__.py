"""Published protocols on plain arrays: IJB 1:1 and 1:N, re-ID, landmarks, leave-one-out."""
