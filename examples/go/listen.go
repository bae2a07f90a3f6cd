// Listen is a device for one session, written from docs/device-protocol.md: it prints what comes, one JSON object a line, acknowledges messages,
// sends the result where one is wanted, and ends with the connection.
//
//	go run . ws://127.0.0.1:7480/v1/connect dev:my-tv
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
)

const subprotocol = "push.v1.json"

type frame struct {
	Type       string          `json:"type"`
	ID         string          `json:"id"`
	Confirm    string          `json:"confirm"`
	Data       json.RawMessage `json:"data"`
	DataBase64 string          `json:"data_base64"`
}

type answer struct {
	Type   string   `json:"type"`
	IDs    []string `json:"ids,omitempty"`
	ID     string   `json:"id,omitempty"`
	Status string   `json:"status,omitempty"`
	Data   any      `json:"data,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: listen <url> <token>")
		os.Exit(2)
	}
	if err := listen(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listen(url, token string) error {
	// A write buffer this small makes every larger frame travel in fragments.
	dialer := websocket.Dialer{Subprotocols: []string{subprotocol}, WriteBufferSize: 4096}
	connection, response, err := dialer.Dial(url, http.Header{"Authorization": {"Bearer " + token}})
	if errors.Is(err, websocket.ErrBadHandshake) {
		return fmt.Errorf("refused with HTTP %d", response.StatusCode)
	}
	if err != nil {
		return err
	}
	defer connection.Close()
	if connection.Subprotocol() != subprotocol {
		return fmt.Errorf("the server speaks %q", connection.Subprotocol())
	}
	for {
		_, text, err := connection.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) {
			show("close", map[string]any{"code": closed.Code, "reason": closed.Text})
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(connection, text); err != nil {
			return err
		}
	}
}

func take(connection *websocket.Conn, text []byte) error {
	var got frame
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	switch got.Type {
	case "message":
		payload := any(got.Data)
		size := len(got.Data)
		if got.Data == nil {
			bytes, err := base64.StdEncoding.DecodeString(got.DataBase64)
			if err != nil {
				return err
			}
			payload, size = bytes, len(bytes)
		}
		show("message", map[string]any{"id": got.ID, "size": size, "payload": payload})
		if got.Confirm == "RESULT" {
			return connection.WriteJSON(answer{Type: "result", ID: got.ID, Status: "ok", Data: payload})
		}
		return connection.WriteJSON(answer{Type: "ack", IDs: []string{got.ID}})
	case "ping":
		return connection.WriteJSON(answer{Type: "pong"})
	default: // welcome, and what is only to be shown or not known
		show(got.Type, json.RawMessage(text))
		return nil
	}
}

func show(what string, facts any) {
	line, err := json.Marshal(map[string]any{what: facts})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
